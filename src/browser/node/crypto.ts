// node:crypto's digest of bytes. The one of browsers is there on https alone.

import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';

export function createHash(_algorithm: 'sha256') {
  const digest = sha256.create();
  const hash = {
    update(bytes: Uint8Array) {
      digest.update(bytes);
      return hash;
    },
    digest: (_encoding: 'hex') => bytesToHex(digest.digest()),
  };
  return hash;
}
