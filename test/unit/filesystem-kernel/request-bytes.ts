import { Request } from '../../../src/filesystem/drivers/kernel/requests.ts';

export interface RequestParts {
  readonly node?: number;
  readonly unique?: bigint;
  readonly body?: Uint8Array;
  /** What the header claims, when that is to differ from the truth. */
  readonly claimedLength?: number;
  readonly extensionWords?: number;
}

/** A request as the kernel would send it. */
export function requestBytes(opcode: number, parts: RequestParts = {}): Uint8Array {
  const body = parts.body ?? new Uint8Array(0);
  const bytes = new Uint8Array(40 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, parts.claimedLength ?? bytes.length, true);
  view.setUint32(4, opcode, true);
  view.setBigUint64(8, parts.unique ?? 7n, true);
  view.setBigUint64(16, BigInt(parts.node ?? 1), true);
  view.setUint16(36, parts.extensionWords ?? 0, true);
  bytes.set(body, 40);
  return bytes;
}

/** Little-endian fields one after the other: a number is 32 bits, a bigint 64, a string its bytes and a NUL. */
export function fields(...values: (number | bigint | string)[]): Uint8Array {
  return Buffer.concat(
    values.map((value) => {
      if (typeof value === 'string') return Buffer.from(`${value}\0`, 'latin1');
      const bytes = Buffer.alloc(typeof value === 'bigint' ? 8 : 4);
      if (typeof value === 'bigint') bytes.writeBigUInt64LE(value);
      else bytes.writeUInt32LE(value >>> 0);
      return bytes;
    }),
  );
}

/** Decodes `bytes` whole; the result of {@link Request.decode} beside the request. */
export function decode(bytes: Uint8Array): { request: Request; result: number } {
  const request = new Request();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { request, result: request.decode(bytes, view, bytes.length) };
}

/** The body of READ, READDIR and READDIRPLUS. */
export function readBody(handle: bigint, offset: bigint, size: number): Uint8Array {
  return fields(handle, offset, size, 0, 0n, 0, 0);
}
