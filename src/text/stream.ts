// Text from token ids, one token at a time: for answers that appear while they are generated. A character may
// be spread over several byte tokens (`<0xF0>` `<0x9F>` ...); nothing of it is shown until it is whole.

/** What a stream asks of a tokenizer. */
export interface TokenTexts {
  token(id: number): string;
  isSpecial(id: number): boolean;
}

export interface TextStream {
  /** Adds one token; returns the text that it completes, often ''. */
  push(id: number): string;
  /** Ends the stream; returns what an unfinished character leaves: U+FFFD, or ''. */
  end(): string;
}

const byteToken = /^<0x([0-9A-F]{2})>$/;

/** A detokenizer of Gemma's form: the pieces put together are the text of all ids. */
export function createTextStream(tokenizer: TokenTexts, { skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {}): TextStream {
  // ignoreBOM: without it a byte order mark inside the text would be swallowed.
  const bytes = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: (id) => {
      const special = tokenizer.isSpecial(id);
      if (special && skipSpecialTokens) return '';
      const token = tokenizer.token(id);
      const byte = byteToken.exec(token);
      if (byte) return bytes.decode(Uint8Array.of(Number.parseInt(byte[1], 16)), { stream: true });
      return bytes.decode() + (special ? token : token.replaceAll('▁', ' '));
    },
    end: () => bytes.decode(),
  };
}
