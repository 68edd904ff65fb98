from .pipeline import SwDPipeline as SwDPipeline
