import { describe, expect, test } from 'bun:test';
import {
  decryptGcm,
  deriveCipherKey,
  encryptGcm,
  equalBytes,
  equalTexts,
  hkdf,
  hmac,
  importInputKey,
} from '../../../src/secrets/primitives.ts';
import gcmVectors from '../../vectors/wycheproof-aes-256-gcm.json';
import hkdfVectors from '../../vectors/wycheproof-hkdf-sha256.json';
import { hex } from './world.ts';

// RFC 5869, appendix A.1–A.3
const RFC_5869: readonly [key: string, salt: string, info: string, length: number, output: string][] = [
  [
    '0b'.repeat(22),
    '000102030405060708090a0b0c',
    'f0f1f2f3f4f5f6f7f8f9',
    42,
    '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
  ],
  [
    Buffer.from(Array.from({ length: 80 }, (_, i) => i)).toString('hex'),
    Buffer.from(Array.from({ length: 80 }, (_, i) => 0x60 + i)).toString('hex'),
    Buffer.from(Array.from({ length: 80 }, (_, i) => 0xb0 + i)).toString('hex'),
    82,
    'b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87',
  ],
  [
    '0b'.repeat(22),
    '',
    '',
    42,
    '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8',
  ],
];

// D. McGrew, J. Viega: The Galois/Counter Mode of Operation, test cases 13–16 (256-bit keys)
const GCM_KEY = 'feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308';
const GCM_TEXT =
  'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255';
const GCM_CIPHER =
  '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad';
const NIST: readonly [key: string, nonce: string, data: string, text: string, cipher: string, tag: string][] =
  [
    ['00'.repeat(32), '00'.repeat(12), '', '', '', '530f8afbc74536b9a963b4f1c4cb738b'],
    [
      '00'.repeat(32),
      '00'.repeat(12),
      '',
      '00'.repeat(16),
      'cea7403d4d606b6e074ec5d3baf39d18',
      'd0d1c8a799996bf0265b98b5d48ab919',
    ],
    [GCM_KEY, 'cafebabefacedbaddecaf888', '', GCM_TEXT, GCM_CIPHER, 'b094dac5d93471bdec1a502270e3cc6c'],
    [
      GCM_KEY,
      'cafebabefacedbaddecaf888',
      'feedfacedeadbeeffeedfacedeadbeefabaddad2',
      GCM_TEXT.slice(0, 120),
      GCM_CIPHER.slice(0, 120),
      '76fc6ece0f4e1768cddf8853bb2d551b',
    ],
  ];

describe('hkdf', () => {
  test.each(RFC_5869)('RFC 5869 vector %#', async (key, salt, info, length, output) => {
    expect(await hkdf(await importInputKey(hex(key)), hex(salt), hex(info), length)).toEqual(hex(output));
  });

  test(`agrees with all ${hkdfVectors.tests.length} Wycheproof vectors`, async () => {
    for (const [id, key, salt, info, size, output, result] of hkdfVectors.tests) {
      const derive = async () =>
        hkdf(await importInputKey(hex(String(key))), hex(String(salt)), hex(String(info)), Number(size));
      if (result === 'invalid') expect(derive(), `vector ${id}`).rejects.toThrow();
      else expect(Buffer.from(await derive()).toString('hex'), `vector ${id}`).toBe(String(output));
    }
  });

  test('derives for a cipher the same key as it gives as bytes', async () => {
    const [salt, info] = [hex('aa'.repeat(32)), hex('bb')];
    const input = () => importInputKey(hex('0c'.repeat(32)));
    const derived = await deriveCipherKey(await input(), salt, info);
    const bytes = await hkdf(await input(), salt, info, 32);
    const nonce = hex('00'.repeat(12));
    const made = await encryptGcm(derived, nonce, hex(''), hex('010203'));
    expect(await decryptGcm(await importCipherKey(bytes), nonce, hex(''), made)).toEqual(hex('010203'));
    expect(derived.extractable).toBe(false);
  });

  test('overwrites key material once it is imported', async () => {
    const material = hex('ff'.repeat(32));
    await importInputKey(material);
    expect(material).toEqual(new Uint8Array(32));
  });
});

describe('AES-256-GCM', () => {
  test.each(NIST)('NIST vector %#', async (key, nonce, data, text, cipher, tag) => {
    const imported = await importCipherKey(hex(key));
    const made = await encryptGcm(imported, hex(nonce), hex(data), hex(text));
    expect(Buffer.from(made).toString('hex')).toBe(cipher + tag);
    expect(await decryptGcm(imported, hex(nonce), hex(data), made)).toEqual(hex(text));
  });

  test(`agrees with all ${gcmVectors.tests.length} Wycheproof vectors`, async () => {
    let refused = 0;
    for (const fields of gcmVectors.tests) {
      const [id, key, nonce, data, text, cipher, tag, result] = fields.map(String);
      const imported = await importCipherKey(hex(key ?? ''));
      const stored = hex(`${cipher}${tag}`);
      const open = async () =>
        decryptGcm(imported, hex(nonce ?? ''), hex(data ?? ''), stored).catch(() => undefined);
      const opened = await open();
      if (result === 'invalid') {
        expect(opened, `vector ${id}`).toBeUndefined();
        refused++;
        continue;
      }
      expect(opened, `vector ${id}`).toEqual(hex(text ?? ''));
      expect(
        await encryptGcm(imported, hex(nonce ?? ''), hex(data ?? ''), hex(text ?? '')),
        `vector ${id}`,
      ).toEqual(stored);
    }
    expect(refused).toBe(gcmVectors.tests.filter((fields) => fields.at(-1) === 'invalid').length);
  });
});

test('HMAC-SHA-256 agrees with RFC 4231, test case 2', () => {
  const code = hmac(
    new Uint8Array(Buffer.from('Jefe')),
    new Uint8Array(Buffer.from('what do ya want for nothing?')),
  );
  expect(Buffer.from(code).toString('hex')).toBe(
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  );
});

test('comparisons tell equal from unequal', () => {
  expect(equalBytes(hex('0102'), hex('0102'))).toBe(true);
  expect(equalBytes(hex('0102'), hex('0103'))).toBe(false);
  expect(equalBytes(hex('0102'), hex('01'))).toBe(false);
  expect(equalTexts('a', 'a')).toBe(true);
  expect(equalTexts('a', 'ab')).toBe(false);
});

function importCipherKey(key: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  return crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt', 'decrypt']);
}
