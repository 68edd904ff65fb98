"""A page in the browser: a prompt becomes a sample, stage by stage (`swd-sample RUN --demo`, extra `demo`).

In a Space of the hub, `launch(page(...))` is the whole app.py: docs/demo.md.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from swd_data import check_text, read_prompts
from swd_models.adapters import adapted_layers, without_adapters
from swd_models.loading import first_device, load_teacher, resolve_model
from swd_models.parts import Media, Teacher
from swd_models.placing import place_pipeline
from swd_models.quantized import Base
from swd_sample.media import save_media
from swd_sample.pipeline import TEACHER, SwDPipeline
from swd_schedules import ScaleSchedule, Stage
from swd_schedules.devices import default_dtype

if TYPE_CHECKING:
    from gradio import Blocks

STYLE = """
#stages .grid-wrap { height: auto; min-height: 0; max-height: none; }
#stages .grid-container { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); height: auto; }
"""
SMALL = 512
"""Pixels of the longer side below which a picture is shown larger, each pixel as a square."""
WAITING = 64
"""Requests that may wait for their turn; one is answered at a time."""
MAX_SEED = 2**31 - 1
NOTHING, UNDISTILLED = "nothing", "undistilled"


@dataclass(frozen=True)
class Beside:
    """What a student is shown beside: how its teacher is asked. `load` loads that, when it is first wanted."""

    steps: int = TEACHER[0]
    guidance: float = TEACHER[1]
    load: Callable[[], Teacher] | None = None

    @property
    def teacher(self) -> str:
        """Return what the page calls the teacher."""
        return f"teacher, {self.steps} steps"


def check_gradio() -> None:
    """Raise ValueError where gradio is not installed."""
    if find_spec("gradio") is None:
        raise ValueError("expected gradio for --demo, got none: pip install 'swd-sample[demo]'")


def shipped_prompts(model: str, count: int = 6) -> list[str]:
    """Return some prompts of a model that brings its own, as the embedded ones do."""
    file = Path(resolve_model(model)) / "prompts.txt"
    return read_prompts(file)[:count] if file.is_file() else []


def teacher_loader(model: str, pipe: SwDPipeline, base: Base = "bf16", **options: Any) -> Callable[[], Teacher]:
    """Return what loads a pipeline's teacher when it is first called: all of it, beside the student's.

    Where the student's parts come one at a time, so do the teacher's. `options` are of `load_teacher`.
    """

    def load() -> Teacher:
        where = pipe.device
        options.update(num_tokens=pipe.text.num_tokens, dtype=default_dtype(where))
        teacher = load_teacher(model, base=base, device=first_device(model, base, where), **options)
        place_pipeline(teacher.pipe, where, together=not pipe.one_at_a_time)
        return teacher

    return cache(load)


@dataclass(frozen=True)
class _Answers:
    """What the page shows for a prompt, as it comes: parts of it by name."""

    pipe: SwDPipeline
    beside: Beside
    student: bool

    def __call__(self, prompt: str, seed: int, steps: int, compared: str) -> Iterator[dict[str, Any]]:
        """Yield all that is there by now: stages as they grow, the sample, and what is beside it.

        Files are gone when it ends: gradio has copied each by then.
        """
        check_prompt(prompt)
        schedule, guidance = self.pipe.schedule.thin(steps), 1.0 if self.student else self.beside.guidance
        found: dict[str, Any] = {"stages": [], "sample": None, "second": None}
        yield found
        with tempfile.TemporaryDirectory(prefix="swd-demo-") as folder:
            for stage, x0 in self.pipe.stages(prompt, seed=seed, schedule=schedule, guidance_scale=guidance):
                (media,) = self.pipe.decode(x0)
                shown = self._shown(media, folder)
                found |= {"stages": [*found["stages"], (shown, _named(stage, media))], "sample": shown}
                yield found
            if compared == UNDISTILLED:
                with without_adapters(self.pipe.denoiser):
                    options: dict[str, Any] = {"schedule": schedule, "guidance_scale": self.beside.guidance}
                    (media,) = self.pipe(prompt, seed=seed, **options)
                yield found | {"second": self._shown(media, folder)}
            elif compared != NOTHING:
                yield found | {"second": self._shown(self._taught(prompt, seed), folder)}

    def _taught(self, prompt: str, seed: int) -> Media:
        assert self.beside.load is not None
        teacher, generators = self.beside.load(), [torch.Generator().manual_seed(seed)]
        options = {"num_steps": self.beside.steps, "guidance": self.beside.guidance, "generators": generators}
        (media,) = teacher([prompt], size=self.pipe.schedule.sizes[-1], **options)
        return media

    def _shown(self, media: Media, folder: str) -> str:
        """Return the path of what gradio shows: of an image it would write the same file again at each step.

        Whoever is just loading it would get a part.
        """
        video = isinstance(media, list)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".mp4" if video else ".png", delete=False) as file:
            path = Path(file.name)
        shown = [_enlarged(frame) for frame in media] if isinstance(media, list) else _enlarged(media)
        save_media(shown, path, self.pipe.fps, playable=True)
        return str(path)


def page(
    pipe: SwDPipeline, title: str = "SwD", *, prompts: Sequence[str] = (), beside: Beside | None = None
) -> "Blocks":
    """Build the page of a pipeline: `launch` it, or serve it as any of gradio's.

    The first of `prompts` stands there already, the others are to choose. The undistilled model can be shown beside a
    student whose LoRA is apart (`merge=False`). A pipeline without a LoRA is sampled with `beside.guidance`: pass one
    that is merged as `beside=Beside(guidance=1.0)`.
    """
    check_gradio()
    import gradio as gr

    beside, video, count = beside or Beside(), pipe.fps is not None, len(pipe.schedule.sizes)
    apart = bool(adapted_layers(pipe.denoiser))
    answers = _Answers(pipe, beside, apart)
    others = [UNDISTILLED] * apart + [beside.teacher] * (beside.load is not None)
    kind = gr.Video if video else partial(gr.Image, format="png")
    look: dict[str, Any] = {"autoplay": True, "loop": True} if video else {}
    look |= {"interactive": False, "buttons": ["download"] if video else ["download", "fullscreen"]}
    blocks: Blocks = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600))
    with blocks:
        gr.Markdown(f"# {title}\n{_about(pipe.schedule, apart or beside.guidance == 1.0)}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                prompt = gr.Textbox(prompts[0] if prompts else "", label="Prompt", lines=2, autofocus=True)
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120)
                    another = gr.Button("Another seed", min_width=120)
                steps = gr.Slider(1, count, count, step=1, label="Steps", interactive=count > 1)
                choice = gr.Radio([NOTHING, *others], value=NOTHING, label="Beside it", visible=bool(others))
                go = gr.Button("Generate", variant="primary")
            with gr.Column(scale=2, min_width=300):
                with gr.Row():
                    sample, second = kind(label="Sample", **look), kind(label="Beside it", visible=False, **look)
                stages = gr.Gallery(
                    label="Stages", elem_id="stages", columns=count, height="auto", format="png", buttons=["download"]
                )
        if prompts[1:]:
            gr.Examples([[each] for each in prompts[1:]], prompt, label="Other prompts")

        def generate(prompt: str, seed: float | None, steps: float, compared: str) -> Iterator[dict[Any, Any]]:
            try:
                if seed is None:
                    raise ValueError("expected a seed, got none: a number from 0")
                for found in answers(prompt, int(seed), int(steps), compared):
                    beside_it = gr.update(value=found["second"], visible=compared != NOTHING, label=compared)
                    yield {stages: found["stages"], sample: found["sample"], second: beside_it}
            except Exception as error:
                raise gr.Error(str(error)) from error

        another.click(lambda: random.randrange(MAX_SEED), None, seed, queue=False, api_visibility="private")
        inputs, outputs = [prompt, seed, steps, choice], [sample, second, stages]
        once = {"concurrency_limit": 1, "show_progress": "minimal", "api_name": "generate"}
        gr.on([go.click, prompt.submit], generate, inputs, outputs, **once)
    blocks.queue(max_size=WAITING)
    return blocks


def launch(blocks: "Blocks", host: str | None = None, port: int | None = None, **options: Any) -> Any:
    """Serve a page until it is interrupted, to this machine alone, on the first free port from 7860.

    Unless `host` and `port` are given, or gradio's environment says otherwise: that of a Space does.
    """
    import gradio as gr

    # Fonts that are there: none is fetched.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    # Of itself gradio opens a tunnel in notebooks.
    settings: dict[str, Any] = {"share": False, "footer_links": []} | options
    return blocks.launch(server_name=host, server_port=port, theme=theme, css=STYLE, **settings)


def check_prompt(prompt: str) -> None:
    """Raise ValueError for a prompt that says nothing, or what no model reads."""
    if not prompt.strip():
        raise ValueError("expected a prompt, got an empty one: say what is to be seen")
    check_text(prompt, "the prompt")


def _about(schedule: ScaleSchedule, student: bool) -> str:
    told = "" if student else " There is no student here yet: these are steps of the undistilled model."
    return f"{len(schedule.sizes)} steps (timestep @ latent size): {schedule}.{told}"


def _enlarged(image: Image.Image) -> Image.Image:
    times = -(-SMALL // max(image.size))
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST) if times > 1 else image


def _named(stage: Stage, media: Media) -> str:
    image = media[0] if isinstance(media, list) else media
    return f"{stage.index + 1}: {image.width} x {image.height}"
