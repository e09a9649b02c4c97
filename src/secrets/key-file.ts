import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import { writeDurablySync } from '../files/index.ts';
import { type Bytes, encodeFields } from './encoding.ts';
import { masterKeyError } from './errors.ts';
import {
  hkdf,
  type InputKey,
  importInputKey,
  KEY_BYTES,
  type RandomBytes,
  randomBytes,
} from './primitives.ts';

const LINE_TAG = 'imgcred-key-1';
const ID_BYTES = 10;
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

const HEADER = `# Master keys of imgcred: whoever has this file and the database can read all secrets in it.
# Keep a copy apart from the backups of the data. One key a line, the oldest first.
`;

/** One master key, ready for use. */
export interface MasterKey {
  /** Derived from the key, so that a key can't be taken for another one. */
  readonly id: string;
  readonly checkValue: Bytes;
  readonly key: InputKey;
}

/** A key with the line that stands for it in a file. */
interface KeyLine extends MasterKey {
  readonly line: string;
}

/** A new random key as a line of a key file: what `imgcred key generate` prints. */
export async function generateKeyLine(random: RandomBytes = randomBytes): Promise<string> {
  return (await keyLine(random(KEY_BYTES))).line;
}

/**
 * The keys of a master key file, in the order in which they stand.
 *
 * Each line is `imgcred-key-1 <id> <key, base64url>`, or a bare key of 32 bytes in hex or base64; `#` starts a
 * comment. `groupMayRead` is for a directory that guards its files by itself (systemd's credentials).
 *
 * @throws SecretError MASTER_KEY when it is missing, unreadable, readable by others, or not as described.
 */
export async function readKeyFile(path: string, groupMayRead = false): Promise<MasterKey[]> {
  return await parseKeyFile(path, readPrivateFile(path, groupMayRead));
}

/**
 * Makes a key file with one new key. Another process that does the same at the same time loses, and gets the
 * file that won; a crash at any point leaves either no file or a whole one.
 */
export async function createKeyFile(path: string, random: RandomBytes = randomBytes): Promise<void> {
  const text = `${HEADER}${await generateKeyLine(random)}\n`;
  try {
    writeDurablySync(path, text, true);
  } catch (thrown) {
    if (systemErrorCode(thrown) !== 'EEXIST') throw unreadable(path, thrown, 'cannot be written');
  }
}

/** Replaces a key file's keys: adds a line, or takes out the one with the id `drop`. Atomic and durable. */
export async function rewriteKeyFile(
  path: string,
  change: { readonly add: string } | { readonly drop: string },
): Promise<void> {
  const text = readPrivateFile(path, false);
  let next: string;
  if ('add' in change) {
    next = `${text.endsWith('\n') ? text : `${text}\n`}${change.add}\n`;
  } else {
    const kept: string[] = [];
    for (const line of text.split('\n')) {
      if (!isKey(line) || (await parseLine(path, line)).id !== change.drop) kept.push(line);
    }
    next = kept.join('\n');
  }
  try {
    writeDurablySync(path, next);
  } catch (thrown) {
    throw unreadable(path, thrown, 'cannot be written');
  }
}

function readPrivateFile(path: string, groupMayRead: boolean): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (thrown) {
    throw unreadable(path, thrown, 'cannot be read');
  }
  try {
    const { mode, uid } = fstatSync(descriptor);
    const open = mode & (groupMayRead ? 0o037 : 0o077);
    if (open !== 0) {
      throw masterKeyError(
        `the master key file ${path} can be used by others (mode ${(mode & 0o777).toString(8)})`,
        {
          hint: `chmod 0600 ${path}`,
        },
      );
    }
    const self = process.geteuid?.() ?? uid;
    if (uid !== self && uid !== 0) {
      throw masterKeyError(`the master key file ${path} belongs to another user (uid ${uid})`, {
        hint: `chown it to uid ${self}`,
      });
    }
    return readFileSync(descriptor, 'utf8');
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'EISDIR') throw unreadable(path, thrown, 'cannot be read');
    throw thrown;
  } finally {
    closeSync(descriptor);
  }
}

async function parseKeyFile(path: string, text: string): Promise<MasterKey[]> {
  const keys: MasterKey[] = [];
  for (const line of text.split('\n')) {
    if (!isKey(line)) continue;
    const { id, checkValue, key } = await parseLine(path, line);
    if (!keys.some((known) => known.id === id)) keys.push({ id, checkValue, key });
  }
  if (keys.length === 0) {
    throw masterKeyError(`the master key file ${path} holds no key`, {
      hint: 'put the right file there, or make a key with `imgcred key generate`',
    });
  }
  return keys;
}

function isKey(line: string): boolean {
  return line.trim() !== '' && !line.trimStart().startsWith('#');
}

async function parseLine(path: string, line: string): Promise<KeyLine> {
  const words = line.trim().split(/\s+/);
  const [tag, id, encoded] = words.length === 1 ? [LINE_TAG, undefined, words[0]] : words;
  const material =
    tag === LINE_TAG && words.length <= 3 && encoded !== undefined ? decodeKey(encoded) : undefined;
  const parsed = material === undefined ? undefined : await keyLine(material);
  if (parsed === undefined || (id !== undefined && id !== parsed.id)) {
    throw masterKeyError(`the master key file ${path} holds a line that is no key, or a damaged one`, {
      hint: 'put the right file there; a key is a line made by `imgcred key generate`',
    });
  }
  return parsed;
}

function decodeKey(text: string): Bytes | undefined {
  const bytes = /^[0-9a-fA-F]{64}$/.test(text)
    ? Buffer.from(text, 'hex')
    : /^[A-Za-z0-9+/_-]{43}=?$/.test(text)
      ? Buffer.from(text, 'base64')
      : undefined;
  return bytes?.length === KEY_BYTES ? new Uint8Array(bytes) : undefined;
}

async function keyLine(material: Bytes): Promise<KeyLine> {
  const encoded = Buffer.from(material).toString('base64url');
  const key = await importInputKey(material);
  const none = new Uint8Array(0);
  const id = `kek_${base32(await hkdf(key, none, encodeFields(['imgcred/1 master key id']), ID_BYTES))}`;
  const checkValue = await hkdf(key, none, encodeFields(['imgcred/1 master key check']), 16);
  return { id, checkValue, key, line: `${LINE_TAG} ${id} ${encoded}` };
}

function base32(bytes: Bytes): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  let text = '';
  for (let i = 0; i < (bytes.length * 8) / 5; i++, value >>= 5n)
    text = ALPHABET.charAt(Number(value & 31n)) + text;
  return text;
}

function unreadable(path: string, thrown: unknown, what: string) {
  const code = systemErrorCode(thrown);
  const reason =
    code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : (code ?? 'unknown reason');
  return masterKeyError(`the master key file ${path} ${what}: ${reason}`, {
    hint:
      code === 'ENOENT'
        ? 'put the key file there, or make a new key with `imgcred key generate` for a new data directory'
        : 'check the path and its permissions',
    cause: thrown,
  });
}

/** For tests and for `imgcred key generate`: the id that a line's key has. */
export async function keyIdOfLine(line: string): Promise<string> {
  return (await parseLine('(line)', line)).id;
}
