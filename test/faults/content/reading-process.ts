// Reads random places of an image for ever (or `reads` times), checks every byte, prints a line a read.
// Arguments: directory of the store, limit in bytes, seed, reads.
import { ContentStore, ImageContent } from '../../../src/content/index.ts';
import { MemorySource } from '../../unit/content/support/source.ts';
import { makeTestImage } from './world.ts';

const [directory = '', limit = '0', seed = '1', reads = '0'] = process.argv.slice(2);
const image = await makeTestImage();
const store = await ContentStore.open(directory, Number(limit) > 0 ? { limitBytes: Number(limit) } : {});
const files = [...image.files.values()];
let state = Number(seed);
const random = (below: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

let content = new ImageContent(image.index, store, new MemorySource(image.layers));
for (let done = 0; Number(reads) === 0 || done < Number(reads); done += 1) {
  const file = files[random(files.length)];
  if (file === undefined) throw new Error('the image has no files');
  const offset = random(file.bytes.length);
  const into = new Uint8Array(random(200_000));
  const expected = file.bytes.subarray(offset, offset + into.length);
  const count = await content.read(file.ino, offset, into);
  if (Buffer.compare(into.subarray(0, count), expected) !== 0) {
    console.log(`wrong bytes at ${offset} of inode ${file.ino}`);
    process.exit(1);
  }
  console.log(`read ${done}`);
  // Now and then as if another container of the image started: leases end, files may go.
  if (random(20) === 0) {
    await content.close();
    content = new ImageContent(image.index, store, new MemorySource(image.layers));
  }
}
await content.close();
await store.close();
