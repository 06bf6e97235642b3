// BLAKE3 of a file, off the page's own thread.
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex } from "@noble/hashes/utils.js";

onmessage = async ({ data }: MessageEvent<File>) => {
  const hash = blake3.create({});
  const reader = data.stream().getReader();
  let done = 0;
  for (;;) {
    const piece = await reader.read();
    if (piece.done) break;
    hash.update(piece.value);
    done += piece.value.length;
    postMessage({ done });
  }
  postMessage({ hash: bytesToHex(hash.digest()) });
};
