"""transformers as a peer, and peft over it: AutoProcessor, LlavaForConditionalGeneration, PeftModel, generate().

Run by export/peer.ts: each line of standard input is a call, {"method", "parameters"}, and each line of the answer
{"value"}, {"error"}, or one {"part"} of several, of which the last is followed by {"value"}. Tensors are the base64 of
their float32 numbers.
"""

import base64
import inspect
import json
import os
import sys

# what libraries print is no answer
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoProcessor, LlavaForConditionalGeneration  # noqa: E402

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def traced(name, tensor):
    numbers = tensor.detach().to(torch.float32).contiguous().numpy()
    return {"name": name, "data": base64.b64encode(numbers.tobytes()).decode()}


def features_of(output):
    """The rows of all pictures, in whatever form this version gives them."""
    found = getattr(output, "pooler_output", output)
    return torch.cat(list(found)) if isinstance(found, (list, tuple)) else found


def keys_and_values(cache, layer):
    """Of a layer of the cache, which had other forms before."""
    if hasattr(cache, "layers"):
        return cache.layers[layer].keys, cache.layers[layer].values
    return cache[layer]


class Transformers:
    def load(self, request):
        folder, base = request["folder"], request.get("base")
        self.processor = AutoProcessor.from_pretrained(base or folder)
        options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
        self.model, info = LlavaForConditionalGeneration.from_pretrained(base or folder, **options)
        odd = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
        if odd:
            raise ValueError(f"tensors that do not fit: {odd}")
        version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        if base:
            import peft

            self.model = peft.PeftModel.from_pretrained(self.model, folder)
            version = f"peft {peft.__version__}, {version}"
        self.model.eval()
        return version

    def inputs(self, question):
        content = [{"type": "image", "image": Image.open(question["image"])}, {"type": "text", "text": question["text"]}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return self.processor.apply_chat_template([{"role": "user", "content": content}], **options)

    def answer(self, question, max_new_tokens):
        inputs = self.inputs(question)
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        return self.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def trace(self, question):
        inputs = self.inputs(question)
        llava = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        output = self.model(**inputs, use_cache=True)
        text = llava.config.text_config
        yield traced("pixel_values", inputs["pixel_values"])
        yield traced("input_ids", inputs["input_ids"])
        yield traced("image_features", features_of(llava.get_image_features(pixel_values=inputs["pixel_values"])))
        for layer in range(text.num_hidden_layers):
            keys, values = keys_and_values(output.past_key_values, layer)
            # a layer that sees a window keeps no more than that
            if keys.shape[2] == inputs["input_ids"].shape[1]:
                yield traced(f"present.{layer}.key", keys)
                yield traced(f"present.{layer}.value", values)
        logits = output.logits[0, -1]
        # LlavaForConditionalGeneration leaves out the cap that Gemma 2 has on its logits; the largest stays the largest
        cap = getattr(text, "final_logit_softcapping", None)
        yield traced("logits", logits if cap is None else cap * torch.tanh(logits / cap))


def say(reply):
    print(json.dumps(reply), file=answers, flush=True)


peer = Transformers()
with torch.no_grad():
    for line in sys.stdin:
        call = json.loads(line)
        try:
            value = getattr(peer, call["method"])(*call["parameters"])
            if inspect.isgenerator(value):
                for part in value:
                    say({"part": part})
                value = None
            say({"value": value})
        except Exception as error:  # whatever it is, the one who asked is told
            say({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
