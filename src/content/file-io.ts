import fs from 'node:fs';

/** Reads into all of `into` from byte `position`. Answers how many bytes there were: fewer only at the file's end. */
export async function readFully(fd: number, into: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const count = await new Promise<number>((resolve, reject) =>
      fs.read(fd, into, done, into.length - done, position + done, (error, bytes) =>
        error === null ? resolve(bytes) : reject(error),
      ),
    );
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** The same, now, on the calling thread: for bytes that are in the page cache. */
export function readFullySync(fd: number, into: Uint8Array, position: number): number {
  let done = 0;
  while (done < into.length) {
    const count = fs.readSync(fd, into, done, into.length - done, position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Writes all of `bytes` at byte `position`. */
export async function writeFully(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += await new Promise<number>((resolve, reject) =>
      fs.write(fd, bytes, done, bytes.length - done, position + done, (error, count) =>
        error === null ? resolve(count) : reject(error),
      ),
    );
  }
}

/** fdatasync(2). */
export function syncData(fd: number): Promise<void> {
  return new Promise((resolve, reject) =>
    fs.fdatasync(fd, (error) => (error === null ? resolve() : reject(error))),
  );
}

const COPY_BYTES = 1024 * 1024;

/** Copies the first `length` bytes of one file to byte `position` of another. @throws where they are not there */
export async function copyRange(from: number, to: number, position: number, length: number): Promise<void> {
  const piece = new Uint8Array(Math.min(COPY_BYTES, length));
  for (let done = 0; done < length; done += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, length - done));
    if ((await readFully(from, part, done)) !== part.length)
      throw new Error('a temporary file was cut short');
    await writeFully(to, part, position + done);
  }
}
