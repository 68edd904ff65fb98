"""SwD for ComfyUI: few-step sampling whose resolution grows with every step."""

from .swd_nodes.nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
