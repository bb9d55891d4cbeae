"""Ask questions about an image: in the terminal, or from the command line.

Reads   a checkpoint of train_dialogue.py (default: the newest below this folder), and an image
Writes  answers to the screen; --html a page with the image and the dialogue

A dialogue in the terminal, which ends with an empty input (Ctrl-D):
    python chat.py --image picture.png
Questions from the command line:
    python chat.py --image picture.png --question "is there a star ?" --question "where is it ?"
    python chat.py --image picture.png --question "how many shapes are there ?" --html chat.html

"It" means the object that was last named alone. The model knows the questions of worlds/talk.py
only. Another question is answered too, with a note.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, files, flags, images
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from caption import features, writer
from caption.dialogue_writer import Answerer, Conversation
from loop import checkpoint, hardware
from show import dialogue_page
from worlds import looks, notes, talk

EXAMPLES = ("how many red shapes are there ?", "what is left of the circle ?")
TYPE = f"type a question, such as: {EXAMPLES[0]}   (Ctrl-D ends)"
OUTSIDE = "this model knows only its own questions, such as: " + "   ".join(EXAMPLES)


@dataclass
class Chat:
    """The image, the questions, and where the dialogue goes."""

    image: str | None = setting(None, "the image to ask about", metavar="FILE")
    checkpoint: str | None = setting(
        None, "a model of dialogues; none: the newest below this folder"
    )
    question: list[str] | None = setting(
        None, "a question, which may be given again; none: questions are typed"
    )
    html: str | None = setting(None, "write a page with the image and the dialogue", metavar="FILE")
    seed: int = setting(0, "decides the answers at a --temperature above 0", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)
        if self.question and not all(text.strip() for text in self.question):
            raise UserError("an empty --question", "a question", f'try --question "{EXAMPLES[0]}"')


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Chat)
    # Soft masks and quality heads are of other networks.
    parser.add_settings(SampleConfig, skip=("block_size", *config.SPECIAL), **config.CAPTIONS)
    return parser.parse_args(argv)


def open_conversation(options: Chat, settings: SampleConfig, image):
    """The dialogue before its first turn, and facts about the model for the page."""
    path = Path(options.checkpoint) if options.checkpoint else checkpoint.newest(("dialogue",))
    device = hardware.choose_device(options.device)
    model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("dialogue",))
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    encoder = features.open_encoder(saved, path, model.device)
    seen = writer.standardise(encoder.features([image]), saved["statistics"], model.device)
    answerer = Answerer.of(model, tokenizer, saved)
    facts = {"checkpoint": path.name, "trained for": f"{saved['step']} steps"}
    facts |= {"sampler": settings.sampler, "temperature": settings.temperature}
    return Conversation(answerer, seen, settings, options.seed), facts


def seen_of(conversation: Conversation) -> list[str]:
    """The objects that a model with looks has noted of the image."""
    noted = [said.text for _, said in conversation.looks]
    return [text for text in noted if text and text != looks.NOTHING]


def note_of(question: str) -> str:
    """What a person should know of a question that the model was not trained for, or ""."""
    try:
        talk.read(question)
    except talk.Unread:
        return OUTSIDE
    return ""


def answer(conversation: Conversation, question: str) -> str:
    """The answer to a question as it is printed, with its note on a line of its own."""
    forgotten = conversation.forgotten
    said = conversation.ask(question).text or "(nothing)"
    note = note_of(question)
    lines = [said] + ([f"  note: {note}"] if note else [])
    if conversation.forgotten > forgotten:
        lines.append(f"  note: the first {conversation.forgotten} questions are forgotten now")
    return "\n".join(lines)


def converse(conversation: Conversation) -> None:
    """Answer the lines of standard input until it ends; a mistake is named and nothing is lost."""
    print(TYPE, file=sys.stderr)
    for line in sys.stdin:
        question = line.strip()
        if not question:
            print(TYPE, flush=True)
            continue
        try:
            # flush: a program that reads through a pipe must see each answer at once.
            print(answer(conversation, question), flush=True)
        except UserError as error:
            print(f"error: {error}", flush=True)


def write_page(path: str, options: Chat, image, conversation: Conversation, facts: dict) -> None:
    """The page with the image and the dialogue."""
    noted = [said.text for _, said in conversation.looks]
    turns = []
    for question, said in conversation.turns:
        turn = {"question": question, "answer": said.text, "note": note_of(question)}
        turns.append(turn | {"objects": notes.named(said.note, noted)})
    name = Path(options.image).name
    item = {"image": images.data_uri(image, size=448), "name": name, "turns": turns}
    item["seen"] = seen_of(conversation)
    files.write_text(path, dialogue_page.page(item, {"image": name, **facts}))
    print(f"wrote {path}", file=sys.stderr)


def main(argv=None):
    arguments = parse_args(argv)
    options = flags.resolve(Chat, arguments)
    settings = flags.resolve(SampleConfig, arguments)
    if not options.image:
        raise UserError("no image", "an image to ask about", "name it with --image")
    image = images.open_image(options.image)
    if options.html:  # writable before anything long begins
        files.writable_folder(Path(options.html).parent)
    if options.threads:
        torch.set_num_threads(options.threads)
    conversation, facts = open_conversation(options, settings, image)
    if conversation.looks:
        print("it sees: " + (", ".join(seen_of(conversation)) or looks.NOTHING), file=sys.stderr)
    if options.question:
        for question in options.question:
            print(f"{question} {answer(conversation, question)}")
    else:
        converse(conversation)
    if options.html:
        write_page(options.html, options, image, conversation, facts)


if __name__ == "__main__":
    files.run(main)
