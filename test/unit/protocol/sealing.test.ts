import { describe, expect, test } from 'bun:test';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import fc from 'fast-check';
import { Secret } from '../../../src/credentials/index.ts';
import { generateWorkerKey, sealBinding, sealToWorker } from '../../../src/protocol/index.ts';
import { errorOf } from '../database/world.ts';

const VALUE = '{"registry":"r.test","type":"basic","credentials":{"PASSWORD":"hunter2"}}';

describe('a sealed credential', () => {
  test('opens with the worker’s key and the binding it was sealed with', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealToWorker(key.publicKey, new Secret(VALUE), 'ctr_1\n1');
    expect((await key.open(sealed, 'ctr_1\n1')).reveal()).toBe(VALUE);
  });

  test('property: any text comes back as it was', async () => {
    const key = await generateWorkerKey();
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), fc.string(), async (text, binding) => {
        const sealed = await sealToWorker(key.publicKey, new Secret(text), binding);
        expect((await key.open(sealed, binding)).reveal()).toBe(text);
      }),
      { numRuns: 25 },
    );
  });

  test('does not open with another worker’s key', async () => {
    const [mine, other] = [await generateWorkerKey(), await generateWorkerKey()];
    const sealed = await sealToWorker(mine.publicKey, new Secret(VALUE), 'b');
    const error = await errorOf(() => other.open(sealed, 'b'));
    expect(error).toMatchObject({ code: 'INVALID_CREDENTIALS' });
    expect(JSON.stringify(error)).not.toContain('hunter2');
  });

  test('does not open for another container or another attempt', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealToWorker(key.publicKey, new Secret(VALUE), sealBinding('ctr_1', 1));
    for (const binding of [sealBinding('ctr_1', 2), sealBinding('ctr_2', 1), '']) {
      await errorOf(() => key.open(sealed, binding));
    }
  });

  test('does not open after any bit of it was changed', async () => {
    const key = await generateWorkerKey();
    const bytes = Buffer.from(await sealToWorker(key.publicKey, new Secret('v'), 'b'), 'base64');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await errorOf(() => key.open(changed.toString('base64'), 'b'));
    }
  });

  for (const sealed of [
    '',
    'AAAA',
    Buffer.alloc(32).toString('base64'),
    Buffer.alloc(60).toString('base64'),
  ]) {
    test(`that is not one (${sealed.length} characters) is refused`, async () => {
      const key = await generateWorkerKey();
      expect(await errorOf(() => key.open(sealed, 'b'))).toMatchObject({ code: 'INVALID_CREDENTIALS' });
    });
  }

  test('is different each time, and says nothing but its length', async () => {
    const key = await generateWorkerKey();
    const seal = () => sealToWorker(key.publicKey, new Secret(VALUE), 'b');
    const [a, b] = [await seal(), await seal()];
    expect(a).not.toBe(b);
    expect(Buffer.from(a, 'base64').toString('latin1')).not.toContain('hunter2');
  });

  test('has the shape of RFC 9180 base mode: 32 bytes of key, then the text and 16 bytes of tag', async () => {
    const { publicKey } = await generateWorkerKey();
    const sealed = Buffer.from(await sealToWorker(publicKey, new Secret(VALUE), 'b'), 'base64');
    expect(sealed.length).toBe(32 + VALUE.length + 16);
    expect(Buffer.from(publicKey, 'base64').length).toBe(32);
  });

  test('opens by any other implementation’s rules: DHKEM(X25519), HKDF-SHA256, AES-256-GCM', async () => {
    const suite = new CipherSuite({
      kem: new DhkemX25519HkdfSha256(),
      kdf: new HkdfSha256(),
      aead: new Aes256Gcm(),
    });
    const pair = await suite.kem.generateKeyPair();
    const publicKey = Buffer.from(await suite.kem.serializePublicKey(pair.publicKey)).toString('base64');
    const sealed = Buffer.from(await sealToWorker(publicKey, new Secret(VALUE), 'b'), 'base64');
    const part = (start: number, end?: number) => new Uint8Array(sealed.subarray(start, end)).buffer;
    const opened = await suite.open(
      {
        recipientKey: pair.privateKey,
        enc: part(0, 32),
        info: new TextEncoder().encode('imgcred/1 image_credentials').buffer,
      },
      part(32),
      new TextEncoder().encode('b').buffer,
    );
    expect(new TextDecoder().decode(opened)).toBe(VALUE);
  });

  for (const key of ['', 'AAAA', Buffer.alloc(33).toString('base64')]) {
    test(`is not made for '${key}', which is no key`, async () => {
      const error = await errorOf(() => sealToWorker(key, new Secret(VALUE), 'b'));
      expect(error).toMatchObject({ code: 'INVALID_INPUT' });
    });
  }
});
