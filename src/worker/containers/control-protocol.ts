import { ContainerError } from './errors.ts';

/**
 * A supervisor lives as long as its container, so a worker meets those of earlier builds, and after a step back of
 * later ones. This number, in the container's `state.json`, is of what they say to each other and of the files in the
 * container's directory. It changes only where the other end would not understand: it ignores fields that it does not
 * know, and answers an `op` that it does not know with an error.
 */
export const CONTROL_VERSION = 1;

/**
 * What supervisor and worker say to each other over `control.sock`: frames of a length (u32, little-endian), a
 * kind (u8) and that many bytes.
 */
export const FRAME_KINDS = ['json', 'stdin', 'stdout', 'stderr'] as const;
export type FrameKind = (typeof FRAME_KINDS)[number];

export interface Frame {
  readonly kind: FrameKind;
  readonly bytes: Uint8Array;
}

const HEADER_BYTES = 5;
const MAX_FRAME_BYTES = 4 << 20;

export function encodeFrame(kind: FrameKind, bytes: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + bytes.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint8(4, FRAME_KINDS.indexOf(kind));
  frame.set(bytes, HEADER_BYTES);
  return frame;
}

export function encodeMessage(message: Readonly<Record<string, unknown>>): Uint8Array {
  return encodeFrame('json', new TextEncoder().encode(JSON.stringify(message)));
}

/** The message in a frame of kind `json`. @throws ContainerError when it is none */
export function decodeMessage(frame: Frame): Readonly<Record<string, unknown>> {
  const value: unknown = JSON.parse(new TextDecoder().decode(frame.bytes));
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new ContainerError('the control socket carried something that is no message');
}

/** Cuts a stream of bytes into frames. */
export class FrameDecoder {
  #pending: Uint8Array = new Uint8Array(0);

  /** @throws ContainerError when the bytes are no frames: the connection is of no more use */
  push(chunk: Uint8Array): Frame[] {
    const bytes = this.#pending.length === 0 ? Uint8Array.from(chunk) : Buffer.concat([this.#pending, chunk]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const frames: Frame[] = [];
    let offset = 0;
    while (bytes.length - offset >= HEADER_BYTES) {
      const length = view.getUint32(offset, true);
      const kind = FRAME_KINDS[view.getUint8(offset + 4)];
      if (kind === undefined || length > MAX_FRAME_BYTES) {
        throw new ContainerError('the control socket carried something that is no frame');
      }
      const end = offset + HEADER_BYTES + length;
      if (end > bytes.length) break;
      frames.push({ kind, bytes: bytes.subarray(offset + HEADER_BYTES, end) });
      offset = end;
    }
    this.#pending = bytes.subarray(offset);
    return frames;
  }
}
