// Gemma's chat template as Jinja source, for tokenizers whose files bring none and for those that this
// project trains. Behaves as the one in google/gemma-2b-it: `<bos>` first, no system role, strict
// alternation, contents trimmed.
export const gemmaChatTemplate = [
  '{{ bos_token }}',
  '{% for message in messages %}',
  "{% set expected = 'user' if loop.index0 % 2 == 0 else 'assistant' %}",
  "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
  "{% if message['role'] != expected %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}",
  "{{ '<start_of_turn>' + ('user' if expected == 'user' else 'model') + '\\n' }}",
  "{{ message['content'] | trim }}",
  "{{ '<end_of_turn>\\n' }}",
  '{% endfor %}',
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
].join('');
