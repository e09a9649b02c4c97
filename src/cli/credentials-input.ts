import { readFile } from 'node:fs/promises';
import {
  isCredentialKey,
  parseCredentialsFromEnv,
  parseDockerConfig,
  resolveDockerConfig,
  unmarshalCredentials,
} from '../credentials/index.ts';
import { ImgcredError, systemErrorReason } from '../errors/index.ts';
import { forbidCoreDumps } from '../filesystem/index.ts';
import type { Invocation, Options } from './command.ts';
import { readHiddenInput } from './hidden-input.ts';
import { ANY } from './option-values.ts';

const REFUSED = 'a value on the command line can be read by every user of this machine';

/** Options that name where a credential comes from: never the credential itself. */
export const CREDENTIAL_OPTIONS = {
  'creds-env': {
    value: 'A,B,C',
    takes: ANY,
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
 * Reads the credential that an invocation points at: KEY → VALUE, or undefined where it names none. Where a docker
 * config leaves a login to a credential helper, the helper is asked: here, where the config is at home.
 *
 * @param repository picks among the paths of a docker config
 * @throws ImgcredError USAGE for a variable that is not set, a value where a name belongs, an unreadable file;
 *   CredentialError INVALID_CREDENTIALS for what can't be read
 */
export async function readCredentials(
  invocation: Invocation,
  registry: string,
  repository?: string,
): Promise<Record<string, string> | undefined> {
  const names = invocation.texts('creds-env').flatMap((text) => text.split(','));
  const file = invocation.text('creds-file');
  const sources = [names.length > 0, file !== undefined, invocation.flag('creds-stdin')].filter(
    Boolean,
  ).length;
  if (sources === 0) return undefined;
  // From here on this process holds a credential.
  forbidCoreDumps({ traceable: true });
  if (sources > 1) throw new ImgcredError('USAGE', 'give one of --creds-env, --creds-file and --creds-stdin');
  if (names.length > 0) return fromEnvironment(names);
  if (file === undefined) {
    const text = await readHiddenInput(`login for ${registry}: KEY=VALUE lines, or USER:PASSWORD`);
    return parseCredentialText(text, registry, 'standard input', repository);
  }
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new ImgcredError(
      'USAGE',
      `the credential file ${file} can't be read (${systemErrorReason(cause)})`,
      { cause },
    );
  }
  return parseCredentialText(text, registry, file, repository);
}

function fromEnvironment(names: readonly string[]): Record<string, string> {
  const credentials: Record<string, string> = {};
  const given = names.map((text) => text.trim()).filter((text) => text !== '');
  for (const [at, name] of given.entries()) {
    // A name is repeated only where it can't be a password that was typed in its place.
    const shown = LIKE_A_NAME.test(name) || isCredentialKey(name) ? name : `its item ${at + 1}`;
    if (name.includes('=')) {
      throw new ImgcredError('USAGE', `--creds-env takes names of variables, not values: ${REFUSED}`, {
        hint: 'export the variable, then give its name',
      });
    }
    const value = process.env[name];
    if (value === undefined || value === '') {
      throw new ImgcredError(
        'USAGE',
        `--creds-env: ${shown} is not the name of an environment variable that is set`,
        { hint: 'export the variable first, then give its name' },
      );
    }
    credentials[name] = value;
  }
  if (given.length === 0)
    throw new ImgcredError('USAGE', '--creds-env names no variable', {
      hint: 'for example --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
    });
  return credentials;
}

const LIKE_A_NAME = /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$/;
const ENV_LINE = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$/;
const DOCKER_CONFIG_KEYS = ['auths', 'credHelpers', 'credsStore'];

/**
 * A docker config, KEY=VALUE lines (values may be quoted; `#` begins a comment line), or any other form that
 * `unmarshalCredentials` takes.
 *
 * @throws ImgcredError USAGE, CredentialError INVALID_CREDENTIALS
 */
export async function parseCredentialText(
  text: string,
  registry: string,
  origin: string,
  repository?: string,
): Promise<Record<string, string>> {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '' && !line.trimStart().startsWith('#'));
  if (lines.length === 0) throw new ImgcredError('USAGE', `${origin} holds no credential: it is empty`);
  const variables = lines.map((line) => ENV_LINE.exec(line.trim()));
  // Base64 ends in `=` too: lines are variables only if one of them is known.
  const known = variables.some((match) => isCredentialKey(match?.[1]?.toUpperCase() ?? ''));
  if (known && variables.every((match) => match !== null)) {
    const entries = variables.map((match) => `${match?.[1] ?? ''}=${unquote(match?.[2] ?? '')}`);
    return { ...parseCredentialsFromEnv(entries) };
  }
  if (isDockerConfig(text)) {
    const found = await resolveDockerConfig(registry, parseDockerConfig(text), { repository });
    if (found !== undefined) return { ...found };
  }
  return { ...unmarshalCredentials(text.trim(), registry, repository).credentials };
}

function isDockerConfig(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return (
      typeof value === 'object' &&
      value !== null &&
      DOCKER_CONFIG_KEYS.some((key) => Object.hasOwn(value, key))
    );
  } catch {
    return false;
  }
}

function unquote(value: string): string {
  const match = /^(["'])(.*)\1$/.exec(value);
  return match?.[2] ?? value;
}
