import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { MAX_READ_SIZE, Opcode } from '../../../src/filesystem/drivers/kernel/protocol.ts';
import { Reply } from '../../../src/filesystem/drivers/kernel/replies.ts';
import { Outcome, RequestHandler } from '../../../src/filesystem/drivers/kernel/request-handler.ts';
import { Request } from '../../../src/filesystem/drivers/kernel/requests.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';
import { fields, readBody, requestBytes } from '../../unit/filesystem-kernel/request-bytes.ts';

// More for a night: KERNEL_FUZZ_RUNS=10000000 bun test test/fuzz/kernel-protocol
const numRuns = Number(process.env.KERNEL_FUZZ_RUNS ?? 20_000);

const fs = new MemoryFileSystem();
const directory = fs.directory('/d');
for (let n = 0; n < 300; n++) fs.file(`/d/${'n'.repeat(n % 250)}${n}`, `content ${n}`);
const file = fs.file(
  '/f',
  { size: 2 ** 41, fill: (_: number, into: Uint8Array) => into.fill(7) },
  { xattrs: { 'user.x': Buffer.alloc(300) } },
);
const link = fs.symlink('/l', 't'.repeat(4095));

const valid: Uint8Array[] = [
  requestBytes(Opcode.LOOKUP, { node: directory, body: fields('n') }),
  requestBytes(Opcode.LOOKUP, { node: directory, body: fields('..') }),
  requestBytes(Opcode.FORGET, { node: file, body: fields(1n) }),
  requestBytes(Opcode.GETATTR, { node: file, body: fields(0, 0, 0n) }),
  requestBytes(Opcode.STATX, { node: file, body: fields(0, 0, 0n, 0, 0) }),
  requestBytes(Opcode.READLINK, { node: link }),
  requestBytes(Opcode.OPEN, { node: file, body: fields(0, 0) }),
  requestBytes(Opcode.READ, { node: file, body: readBody(0n, 12345n, 65536) }),
  requestBytes(Opcode.RELEASE, { node: file, body: fields(0n, 0, 0, 0n) }),
  requestBytes(Opcode.OPENDIR, { node: directory, body: fields(0, 0) }),
  requestBytes(Opcode.READDIR, { node: directory, body: readBody(0n, 5n, 4096) }),
  requestBytes(Opcode.READDIRPLUS, { node: directory, body: readBody(0n, 0n, 32768) }),
  requestBytes(Opcode.RELEASEDIR, { node: directory, body: fields(0n, 0, 0, 0n) }),
  requestBytes(Opcode.GETXATTR, { node: file, body: fields(300, 0, 'user.x') }),
  requestBytes(Opcode.LISTXATTR, { node: file, body: fields(64, 0) }),
  requestBytes(Opcode.STATFS),
  requestBytes(Opcode.ACCESS, { node: file, body: fields(4, 0) }),
  requestBytes(Opcode.LSEEK, { node: file, body: fields(0n, 5n, 4, 0) }),
  requestBytes(Opcode.INTERRUPT, { body: fields(7n) }),
  requestBytes(Opcode.BATCH_FORGET, { body: fields(2, 0, 2n, 1n, 3n, 1n) }),
  requestBytes(Opcode.INIT, { body: fields(7, 45, 131072, -1, -1, 0n, 0n) }),
  requestBytes(Opcode.DESTROY),
  requestBytes(Opcode.WRITE, { node: file, body: new Uint8Array(40) }),
];

type Mutation =
  | { kind: 'byte'; at: number; value: number }
  | { kind: 'word'; at: number; value: number }
  | { kind: 'cut'; length: number; honest: boolean }
  | { kind: 'grow'; tail: Uint8Array; honest: boolean };

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('byte'), at: fc.nat(400), value: fc.nat(255) }),
  fc.record({
    kind: fc.constant('word'),
    at: fc.nat(100),
    value: fc.oneof(
      fc.constantFrom(0, 1, 2, 39, 40, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
      fc.nat(0xffff_ffff),
    ),
  }),
  fc.record({ kind: fc.constant('cut'), length: fc.nat(120), honest: fc.boolean() }),
  fc.record({ kind: fc.constant('grow'), tail: fc.uint8Array({ maxLength: 300 }), honest: fc.boolean() }),
);

function mutate(original: Uint8Array, mutations: readonly Mutation[]): Uint8Array {
  let bytes = original.slice();
  for (const change of mutations) {
    if (change.kind === 'byte') {
      if (change.at < bytes.length) bytes[change.at] = change.value;
    } else if (change.kind === 'word') {
      const at = change.at * 4;
      if (at + 4 <= bytes.length) new DataView(bytes.buffer).setUint32(at, change.value, true);
    } else {
      bytes =
        change.kind === 'cut' ? bytes.slice(0, change.length) : Uint8Array.from([...bytes, ...change.tail]);
      if (change.honest && bytes.length >= 4) new DataView(bytes.buffer).setUint32(0, bytes.length, true);
    }
  }
  return bytes;
}

describe('requests that no kernel would send', () => {
  // As in a server thread: one buffer, with what earlier requests left behind the end of the present one.
  const inbox = new Uint8Array(16 * 1024).fill(0x41);
  const view = new DataView(inbox.buffer);
  const request = new Request();
  const reply = new Reply(MAX_READ_SIZE);
  const handler = new RequestHandler(fs, 2 ** 42);

  test('never escape their own bytes, nor the reply its buffer', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...valid),
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        (original, changes) => {
          const bytes = mutate(original, changes);
          inbox.set(bytes);
          const result = request.decode(inbox, view, bytes.length);
          expect([-1, 0, 5]).toContain(result);
          if (result !== 0) return;
          expect(request.bodyLength).toBeLessThanOrEqual(bytes.length - 40);
          const name = request.opcode === Opcode.LOOKUP ? request.lookupName() : undefined;
          if (name !== undefined) expect(name.byteOffset + name.length).toBeLessThan(bytes.length);
          const outcome = handler.handle(request, reply);
          if (outcome !== Outcome.REPLY) return;
          expect(reply.length).toBeLessThanOrEqual(reply.memory.bytes.length);
          expect(reply.memory.view.getUint32(0, true)).toBe(reply.length);
          expect(reply.memory.view.getUint32(8, true)).toBe(request.uniqueLow);
          const error = reply.memory.view.getInt32(4, true);
          expect(error === 0 || (error < 0 && error > -512 && reply.length === 16)).toBe(true);
        },
      ),
      { numRuns },
    );
  }, 600_000);

  test('made of noise are refused or answered', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        inbox.set(bytes);
        if (request.decode(inbox, view, bytes.length) === 0) handler.handle(request, reply);
      }),
      { numRuns },
    );
  }, 600_000);
});
