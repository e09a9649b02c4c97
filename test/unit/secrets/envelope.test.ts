import { describe, expect, test } from 'bun:test';
import { createDecipheriv, createHash, hkdfSync } from 'node:crypto';
import fc from 'fast-check';
import { encodeFields } from '../../../src/secrets/encoding.ts';
import {
  ENVELOPE_OVERHEAD,
  type EnvelopeSubject,
  openEnvelope,
  sealEnvelope,
} from '../../../src/secrets/envelope.ts';
import { importInputKey } from '../../../src/secrets/primitives.ts';
import vectors from '../../vectors/secret-format.json';
import { errorOf } from '../database/world.ts';
import { hex } from './world.ts';

const SUBJECT: EnvelopeSubject = {
  kind: 'value',
  context: ['ws_a', 'sec_b', 'name', 3],
  name: 'secret "name" version 3',
};
const key = (byte = '07') => importInputKey(hex(byte.repeat(32)));
const text = (value: string) => new Uint8Array(Buffer.from(value));

describe('an envelope', () => {
  test('gives back what went in, and is longer by a constant', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 300 }),
        fc.array(fc.string(), { maxLength: 4 }),
        async (bytes, context) => {
          const subject: EnvelopeSubject = { kind: 'value', context, name: 'it' };
          const plaintext = new Uint8Array(bytes);
          const sealed = await sealEnvelope(await key(), subject, plaintext);
          expect(sealed.length).toBe(plaintext.length + ENVELOPE_OVERHEAD);
          expect(await openEnvelope(await key(), subject, sealed)).toEqual(plaintext);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('never looks the same twice', async () => {
    const one = await sealEnvelope(await key(), SUBJECT, text('same'));
    const two = await sealEnvelope(await key(), SUBJECT, text('same'));
    // Header and binding are the same; salt, commitment, nonce, ciphertext and tag differ.
    expect(one.slice(0, 40)).toEqual(two.slice(0, 40));
    for (const [from, to] of [
      [40, 72],
      [72, 104],
      [104, 116],
      [116, undefined],
    ] as const) {
      expect(one.slice(from, to)).not.toEqual(two.slice(from, to));
    }
  });

  test('with any single bit flipped gives an error', async () => {
    const sealed = await sealEnvelope(await key(), SUBJECT, text('hunter2'));
    const open = await key();
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const damaged = sealed.slice();
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(await errorOf(() => openEnvelope(open, SUBJECT, damaged)), `bit ${bit}`).toMatchObject({
        code: 'CORRUPT',
      });
    }
  });

  test('cut at any length, or with bytes behind it, gives an error', async () => {
    const sealed = await sealEnvelope(await key(), SUBJECT, text('hunter2'));
    const open = await key();
    for (let length = 0; length < sealed.length; length++) {
      expect(await errorOf(() => openEnvelope(open, SUBJECT, sealed.slice(0, length)))).toMatchObject({
        code: 'CORRUPT',
      });
    }
    const longer = new Uint8Array([...sealed, 0]);
    expect(await errorOf(() => openEnvelope(open, SUBJECT, longer))).toMatchObject({ code: 'CORRUPT' });
  });

  const moved: readonly [what: string, subject: EnvelopeSubject][] = [
    ['workspace', { ...SUBJECT, context: ['ws_x', 'sec_b', 'name', 3] }],
    ['secret', { ...SUBJECT, context: ['ws_a', 'sec_x', 'name', 3] }],
    ['name', { ...SUBJECT, context: ['ws_a', 'sec_b', 'other', 3] }],
    ['version', { ...SUBJECT, context: ['ws_a', 'sec_b', 'name', 4] }],
    ['border between two fields', { ...SUBJECT, context: ['ws_', 'asec_b', 'name', 3] }],
    ['number of fields', { ...SUBJECT, context: ['ws_a', 'sec_b', 'name', 3, ''] }],
  ];
  test.each(moved)('does not open in another place (%s), and says so', async (_, subject) => {
    const sealed = await sealEnvelope(await key(), SUBJECT, text('hunter2'));
    const error = await errorOf(async () => openEnvelope(await key(), subject, sealed));
    expect(error.message).toContain('was written for another workspace, secret, name or version');
  });

  test('does not open as another kind, nor with another key, and says which', async () => {
    const sealed = await sealEnvelope(await key(), SUBJECT, text('hunter2'));
    const kind = await errorOf(async () => openEnvelope(await key(), { ...SUBJECT, kind: 'key' }, sealed));
    expect(kind.message).toContain('damaged header');
    const other = await errorOf(async () => openEnvelope(await key('08'), SUBJECT, sealed));
    expect(other.message).toBe(
      'secret "name" version 3 cannot be decrypted: it was encrypted with another key, or is damaged',
    );
  });

  test('of a newer format is told from a damaged one', async () => {
    const sealed = await sealEnvelope(await key(), SUBJECT, text('hunter2'));
    sealed[4] = 2;
    const error = await errorOf(async () => openEnvelope(await key(), SUBJECT, sealed));
    expect(error.message).toBe(
      'secret "name" version 3 is stored in format 2, which this imgcred does not know',
    );
  });
});

describe('the documented format', () => {
  test.each(vectors.envelopes)('vector "$title" is what we write', async (vector) => {
    const random = [hex(vector.salt), hex(vector.nonce)];
    const subject: EnvelopeSubject = {
      kind: vector.kind === 'key' ? 'key' : 'value',
      context: vector.context,
      name: 'it',
    };
    const input = await importInputKey(hex(vector.key));
    const sealed = await sealEnvelope(input, subject, hex(vector.plaintext), () => random.shift() ?? hex(''));
    expect(Buffer.from(sealed).toString('hex')).toBe(vector.envelope);
    expect(await openEnvelope(input, subject, sealed)).toEqual(hex(vector.plaintext));
  });

  // A second implementation, on node:crypto, that follows docs/secret-format.md and shares no code with ours.
  test.each(vectors.envelopes)('vector "$title" opens by the document alone', (vector) => {
    const envelope = Buffer.from(vector.envelope, 'hex');
    const context = Buffer.concat(vector.context.map((field) => prefixed(field)));
    const label = (what: string) =>
      Buffer.concat([prefixed(`imgcred/1 ${vector.kind === 'key' ? 'key-wrap' : 'value'} ${what}`), context]);
    const material = Buffer.from(vector.key, 'hex');
    const salt = envelope.subarray(40, 72);
    expect(envelope.subarray(0, 8).toString('hex')).toBe(
      `494d435301${vector.kind === 'key' ? '01' : '02'}0100`,
    );
    expect(envelope.subarray(8, 40).equals(createHash('sha256').update(context).digest())).toBe(true);
    expect(
      envelope
        .subarray(72, 104)
        .equals(Buffer.from(hkdfSync('sha256', material, salt, label('commitment'), 32))),
    ).toBe(true);
    const cipher = createDecipheriv(
      'aes-256-gcm',
      Buffer.from(hkdfSync('sha256', material, salt, label('key'), 32)),
      envelope.subarray(104, 116),
    );
    cipher.setAAD(Buffer.concat([envelope.subarray(0, 8), context]));
    cipher.setAuthTag(envelope.subarray(-16));
    const plaintext = Buffer.concat([cipher.update(envelope.subarray(116, -16)), cipher.final()]);
    expect(plaintext.toString('hex')).toBe(vector.plaintext);
  });
});

test('two different lists of fields never encode alike', () => {
  const field = fc.oneof(fc.string({ maxLength: 6 }), fc.integer({ min: 0, max: 300 }));
  fc.assert(
    fc.property(fc.array(field, { maxLength: 4 }), fc.array(field, { maxLength: 4 }), (a, b) => {
      const same =
        a.length === b.length &&
        a.every((value, i) => Buffer.from(prefixed(value)).equals(prefixed(b[i] ?? '')));
      expect(Buffer.from(encodeFields(a)).equals(encodeFields(b))).toBe(same);
    }),
  );
});

function prefixed(field: string | number): Buffer {
  const bytes = Buffer.alloc(typeof field === 'number' ? 8 : Buffer.byteLength(field));
  if (typeof field === 'number') bytes.writeBigUInt64BE(BigInt(field));
  else bytes.write(field);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
