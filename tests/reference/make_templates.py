# Writes templates.json: which chat template AutoProcessor takes of a folder, and the prompt ids that it makes. Needed only to write it again:
#   .venv/bin/pip install pillow jinja2 && .venv/bin/python tests/reference/make_templates.py
# The committed file came from transformers 5.18.0.
import json
import os
import shutil
import tempfile

from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

here = os.path.dirname(os.path.abspath(__file__))
tokenizer_folder = os.path.join(here, "../../assets/tokenizer")
# 8 x 8 pixels in patches of 4: four image tokens
clip = {"image_processor_type": "CLIPImageProcessor", "size": 8, "crop_size": 8}
processor_config = {"processor_class": "LlavaProcessor", "patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}


def folder(files):
    """A folder of a LLaVA with the embedded tokenizer, `<image>` behind its last row, and these files in addition."""
    path = tempfile.mkdtemp()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(path)
    written = {
        "config.json": {"model_type": "llava", "text_config": {"model_type": "gemma"}},
        "preprocessor_config.json": clip,
        "processor_config.json": processor_config,
    }
    for name, content in (written | files).items():
        os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
        if name == "tokenizer_config.json":
            with open(os.path.join(path, name)) as file:
                content = json.load(file) | content
        if name == "processor_config.json":
            content = processor_config | content
        with open(os.path.join(path, name), "w") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
    return path


def template_of(path):
    """The processor's template, else the tokenizer's."""
    processor = AutoProcessor.from_pretrained(path)
    found = processor.chat_template if processor.chat_template is not None else processor.tokenizer.chat_template
    return found["default"] if isinstance(found, dict) else found


places = {
    "processor_config.json": {"chat_template": "in processor_config.json"},
    "chat_template.json": {"chat_template": "in chat_template.json"},
    "chat_template.jinja": "in chat_template.jinja",
    "tokenizer_config.json": {"chat_template": "in tokenizer_config.json"},
}
named = {"chat_template": [{"name": "tool_use", "template": "of tools"}, {"name": "default", "template": "the default"}]}
folders = [{name: content} for name, content in places.items()]
folders += [
    dict(list(places.items())[:2]),
    dict(list(places.items())[1:3]),
    dict(list(places.items())[2:]),
    places,
    {"tokenizer_config.json": named},
    {"additional_chat_templates/tool_use.jinja": "of tools", "chat_template.jinja": "in chat_template.jinja"},
    {"additional_chat_templates/default.jinja": "in additional_chat_templates", "tokenizer_config.json": named},
    {},
]

# of strings, of parts as in llava-hf folders, and of both
strings = """{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
parts = """{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% if message['role'] == 'assistant' %}{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% else %}{{ content['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
both = """{{ bos_token }}{%- for message in messages -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""
QUESTION, ANSWER, NEXT = "What is at the top left?", "red apple", "How many things are in the picture?"


def content(question, images, as_parts):
    if not as_parts:
        return "<image>\n" * images + question
    return [{"type": "image", "image": Image.new("RGB", (8, 8))}] * images + [{"type": "text", "text": question}]


def prompt(template, as_parts, images, turns):
    """Ids of the turns, the first of which has the pictures, and of the opening of the next answer."""
    processor = AutoProcessor.from_pretrained(folder({"chat_template.jinja": template}))
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": content(text, 0 if i else images, as_parts)} for i, text in enumerate(turns)
    ]
    if as_parts:
        ids = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        pictures = [Image.new("RGB", (8, 8))] * images or None
        ids = processor(text=text, images=pictures, add_special_tokens=not text.startswith("<bos>"))["input_ids"]
    return {"template": template, "images": images, "turns": turns, "ids": ids[0]}


prompts = [
    prompt(template, as_parts, images, turns)
    for template, as_parts in ((strings, False), (parts, True), (both, True))
    for images in (0, 1, 2)
    for turns in ([QUESTION], [QUESTION, ANSWER, NEXT])
]
lines = {
    "folders": [{"files": files, "template": template_of(folder(files))} for files in folders],
    "prompts": prompts,
}
with open(os.path.join(here, "templates.json"), "w") as file:
    groups = (json.dumps(name) + ": [\n" + ",\n".join("  " + json.dumps(case) for case in cases) + "\n]" for name, cases in lines.items())
    file.write("{\n" + ",\n".join(groups) + "\n}\n")
