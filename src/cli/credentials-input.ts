import { readFile } from 'node:fs/promises';
import { parseCredentialsFromEnv, unmarshalCredentials } from '../credentials/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import type { Invocation, Options } from './command.ts';

const REFUSED = 'a value on the command line can be read by every user of this machine';

/** Options that name where a credential comes from: never the credential itself. */
export const CREDENTIAL_OPTIONS = {
  'creds-env': {
    value: 'A,B,C',
    multiple: true,
    help: 'names of environment variables that hold the credential',
  },
  'creds-file': {
    value: 'FILE',
    help: 'file with KEY=VALUE lines, JSON, a docker config.json, or USER:PASSWORD',
  },
  'creds-stdin': { help: 'the same from standard input' },
  creds: { help: '', refuse: REFUSED },
  password: { help: '', refuse: REFUSED },
  token: { help: '', refuse: REFUSED },
} satisfies Options;

/**
 * Reads the credential that an invocation points at: KEY → VALUE, or undefined where it names none.
 *
 * @throws ImgcredError USAGE for a variable that is not set, a value where a name belongs, an unreadable file
 */
export async function readCredentials(
  invocation: Invocation,
  registry: string,
): Promise<Record<string, string> | undefined> {
  const names = invocation.texts('creds-env').flatMap((text) => text.split(','));
  const file = invocation.text('creds-file');
  const sources = [names.length > 0, file !== undefined, invocation.flag('creds-stdin')].filter(
    Boolean,
  ).length;
  if (sources === 0) return undefined;
  if (sources > 1) throw new ImgcredError('USAGE', 'give one of --creds-env, --creds-file and --creds-stdin');
  if (names.length > 0) return fromEnvironment(names);
  if (file === undefined) return parseCredentialText(await Bun.stdin.text(), registry, 'standard input');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new ImgcredError(
      'USAGE',
      `the credential file ${file} can't be read (${systemErrorCode(cause) ?? 'unknown error'})`,
      { cause },
    );
  }
  return parseCredentialText(text, registry, file);
}

function fromEnvironment(names: readonly string[]): Record<string, string> {
  const credentials: Record<string, string> = {};
  for (const name of names.map((text) => text.trim()).filter((text) => text !== '')) {
    if (name.includes('=')) {
      throw new ImgcredError('USAGE', `--creds-env takes names of variables, not values: ${REFUSED}`, {
        hint: `export the variable, then give its name: --creds-env ${name.slice(0, name.indexOf('='))}`,
      });
    }
    const value = process.env[name];
    if (value === undefined || value === '') {
      throw new ImgcredError(
        'USAGE',
        `--creds-env ${name}: there is no such environment variable, or it is empty`,
        {
          hint: `export ${name} first`,
        },
      );
    }
    credentials[name] = value;
  }
  return credentials;
}

const ENV_LINE = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$/;

/** KEY=VALUE lines (values may be quoted; `#` begins a comment line), or any form that `unmarshalCredentials` takes. */
export function parseCredentialText(text: string, registry: string, origin: string): Record<string, string> {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '' && !line.trimStart().startsWith('#'));
  if (lines.length === 0) throw new ImgcredError('USAGE', `${origin} holds no credential: it is empty`);
  if (lines.every((line) => ENV_LINE.test(line.trim()))) {
    const entries = lines.map((line) => {
      const match = ENV_LINE.exec(line.trim());
      return `${match?.[1] ?? ''}=${unquote(match?.[2] ?? '')}`;
    });
    return { ...parseCredentialsFromEnv(entries) };
  }
  return { ...unmarshalCredentials(text.trim(), registry).credentials };
}

function unquote(value: string): string {
  const match = /^(["'])(.*)\1$/.exec(value);
  return match?.[2] ?? value;
}
