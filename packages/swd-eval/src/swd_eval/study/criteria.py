"""What raters are asked (appendix H): four criteria, one at a time, three answers, three raters a pair."""

from dataclasses import dataclass

VOTES_PER_PAIR = 3
TIE, FIRST, SECOND = 0, 1, 2  # answers: can't decide, image 1 is better, image 2 is better


@dataclass(frozen=True)
class Criterion:
    """One question about a pair; `{noun}` is image or video."""

    id: str
    name: str
    question: str
    hint: str


# The paper names the criteria and the answers; its text does not give the wording of the questions, which is ours.
CRITERIA = (
    Criterion(
        "relevance",
        "Relevance",
        "Which {noun} matches the prompt better?",
        "Count what the prompt asks for: objects, numbers, colours, places, actions, style, writing.",
    ),
    Criterion(
        "defects",
        "Defects",
        "Which {noun} has fewer defects?",
        "Look for broken or extra parts, odd faces and hands, garbled writing, blur, noise, seams.",
    ),
    Criterion(
        "aesthetics",
        "Aesthetics",
        "Which {noun} looks better?",
        "Judge composition, light, colour and style, whatever the prompt says.",
    ),
    Criterion(
        "complexity",
        "Complexity",
        "Which {noun} is more complex?",
        "Judge how rich it is: details, textures, objects, background.",
    ),
)
