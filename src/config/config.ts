import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { ImgcredError, systemErrorReason, wordIssue } from '../errors/index.ts';
import { LOG_LEVELS } from '../observability/index.ts';
import { parseBytes } from './bytes.ts';

export const ROLES = ['gateway', 'scheduler', 'worker'] as const;
export type Role = (typeof ROLES)[number];
export const FUSE_DRIVERS = ['auto', 'kernel', 'fuse-native'] as const;

const list = z.preprocess(
  (value) => (typeof value === 'string' ? value.split(',').filter((part) => part !== '') : value),
  z.array(z.string().min(1)),
);
const number = z.preprocess(
  (value) => (typeof value === 'string' && value !== '' ? Number(value) : value),
  z.number(),
);
const bytes = z.preprocess((value, context) => {
  if (typeof value !== 'string') return value;
  try {
    return parseBytes(value);
  } catch {
    context.addIssue({ code: 'custom', message: 'must be a size, such as 512MiB or 10GB' });
    return z.NEVER;
  }
}, z.int().min(0));
const labels = z.preprocess(
  (value, context) => {
    const pairs = typeof value === 'string' ? value.split(',') : value;
    if (!Array.isArray(pairs)) return pairs;
    const wrong = pairs.find((pair) => !/^[^=]+=/.test(String(pair)));
    if (wrong === undefined) return Object.fromEntries(pairs.map((pair) => String(pair).split(/=(.*)/s, 2)));
    context.addIssue({ code: 'custom', message: 'must be NAME=VALUE' });
    return z.NEVER;
  },
  z.record(z.string().min(1).max(256), z.string().max(4096)),
);
const address = z
  .string()
  .regex(/^(none|(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5})$/, 'must be HOST:PORT or none')
  .refine((text) => text === 'none' || Number(text.slice(text.lastIndexOf(':') + 1)) <= 65_535, {
    error: 'the port must be at most 65535',
  });
const path = z
  .string()
  .min(1)
  .transform((value) => resolve(value));

const settings = z.strictObject({
  data_dir: path.optional(),
  roles: z
    .preprocess((value) => (value === 'all' ? [...ROLES] : value), list)
    .pipe(z.array(z.enum(ROLES, { error: `must be 'all' or some of ${ROLES.join(', ')}` })).min(1))
    .default([...ROLES]),
  listen: address.default('127.0.0.1:7480'),
  /** Where figures are given to whoever asks, without a token. */
  metrics_listen: address.default('none'),
  /** Certificate chain and key for the listen address, PEM: then it speaks https. */
  tls_cert: path.optional(),
  tls_key: path.optional(),
  gateway: z
    .url({ protocol: /^https?$/, error: 'must be an http or https address' })
    .refine((url) => !/^[a-z]+:\/\/[^/]*@/i.test(url), 'must hold no login: the token stands in --token-file')
    .optional(),
  token_file: path.optional(),
  gateway_ca: path.optional(),
  master_key_file: path.optional(),
  insecure_registries: list.default([]),
  registry_ca: list.default([]),
  registry_mirrors: list.default([]),
  registry_client_cert: path.optional(),
  registry_client_key: path.optional(),
  fuse_driver: z.enum(FUSE_DRIVERS).default('auto'),
  runtime: z.string().min(1).optional(),
  cache_limit: bytes.optional(),
  /** Container supervisors that a worker keeps started: each run takes one. */
  spare_supervisors: number.pipe(z.int().min(0).max(64)).default(1),
  /** Milliseconds that an image stays mounted after its last container, for the next one. */
  mount_linger_ms: number.pipe(z.int().min(0).max(86_400_000)).default(60_000),
  slots: number.pipe(z.int().min(1).max(10_000)).default(64),
  worker_name: z.string().min(1).max(128).optional(),
  worker_labels: labels.default({}),
  /** How long a worker may be silent before what it runs is given up, ms. */
  lease_ms: number.pipe(z.int().min(500).max(3_600_000)).default(30_000),
  /** Requests that a workspace may have waiting and running at once. */
  queue_limit: number.pipe(z.int().min(1)).default(10_000),
  /** Milliseconds that a read may wait for the registry before it fails. */
  read_timeout_ms: number.pipe(z.int().min(100)).default(60_000),
  prefetch: z.enum(['trace', 'all', 'none']).default('trace'),
  /** Bytes a second that completing images in the background may take. */
  prefetch_limit: bytes.pipe(z.int().min(1)).optional(),
  keep: z.enum(['auto', 'none', 'all']).default('auto'),
  log_level: z.enum(LOG_LEVELS as ['debug', 'info', 'warn', 'error']).default('info'),
});

/** One validated set of settings: what a process was told by flags, environment and file, in that order. */
export type Config = Omit<z.infer<typeof settings>, 'data_dir'> & { readonly data_dir: string };
export type SettingName = keyof z.infer<typeof settings>;

// Flags whose names are not their settings'.
const FLAGS: Partial<Record<string, string>> = {
  roles: '--role',
  insecure_registries: '--insecure-registry',
  registry_mirrors: '--registry-mirror',
  read_timeout_ms: '--read-timeout',
  worker_labels: '--worker-label',
  lease_ms: '--lease',
  mount_linger_ms: '--mount-linger',
};

const SETTINGS_HINT = 'imgcred serve --help lists the settings';

// For who gave a value that is none. What is missing here says enough by itself.
const EXAMPLES: Partial<Record<string, string>> = {
  roles: 'gateway,scheduler',
  listen: '127.0.0.1:7480',
  metrics_listen: '127.0.0.1:9480',
  gateway: 'https://imgcred.example.com',
  cache_limit: '20GB',
  prefetch_limit: '5MB',
  fuse_driver: 'auto',
  prefetch: 'trace',
  keep: 'auto',
  log_level: 'info',
  worker_labels: 'zone=b',
  spare_supervisors: '1',
  mount_linger_ms: '60000',
  slots: '64',
  lease_ms: '30000',
  queue_limit: '10000',
  read_timeout_ms: '60000',
};

// An address may hold a login, where it should not.
function shown(name: string, value: unknown, between: string): string {
  if (name === 'gateway' || !['string', 'number', 'boolean'].includes(typeof value)) return '';
  const text = String(value).slice(0, 80);
  return `${between}${text === '' || /\s/.test(text) ? JSON.stringify(text) : text}`;
}

/**
 * Merges flags over `IMGCRED_*` variables over the JSON file, and checks the result once.
 *
 * @throws ImgcredError USAGE naming the setting, where it came from and what it must be
 */
export function loadConfig(
  flags: Partial<Record<SettingName, unknown>>,
  environment: Record<string, string | undefined>,
  file?: string,
): Config {
  const origins = new Map<string, string>();
  const merged: Record<string, unknown> = {};
  const take = (values: Record<string, unknown>, origin: (name: string) => string) => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue;
      merged[name] = value;
      origins.set(name, origin(name));
    }
  };
  if (file !== undefined) take(readConfigFile(file), (name) => `${file}: ${name}`);
  take(fromEnvironment(environment), (name) => `IMGCRED_${name.toUpperCase()}`);
  take(flags, (name) => FLAGS[name] ?? `--${name.replaceAll('_', '-')}`);
  const result = settings.safeParse(merged, { error: wordIssue });
  if (!result.success) {
    const issue = result.error.issues[0];
    const unknown = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
    const name = unknown ?? String(issue?.path[0] ?? '');
    const origin = origins.get(name) ?? name;
    if (unknown !== undefined) {
      throw new ImgcredError('USAGE', `${origin}: no such setting`, { hint: SETTINGS_HINT });
    }
    const example = EXAMPLES[name];
    const between = origin.startsWith('--') ? ' ' : origin.startsWith('IMGCRED_') ? '=' : ': ';
    throw new ImgcredError('USAGE', `${origin}${shown(name, merged[name], between)}: ${issue?.message}`, {
      hint: example === undefined ? SETTINGS_HINT : `for example ${origin}${between}${example}`,
    });
  }
  if ((result.data.tls_cert === undefined) !== (result.data.tls_key === undefined)) {
    throw new ImgcredError('USAGE', '--tls-cert and --tls-key go together', {
      hint: 'name the certificate chain and its key, both PEM',
    });
  }
  return { ...result.data, data_dir: result.data.data_dir ?? defaultDataDirectory(environment) };
}

/** Where state lives when nobody said: the system's place for root, the user's own otherwise. */
export function defaultDataDirectory(environment: Record<string, string | undefined>): string {
  if (process.getuid?.() === 0) return '/var/lib/imgcred';
  const base = environment.XDG_DATA_HOME;
  return join(
    base?.startsWith('/') ? base : join(environment.HOME ?? homedir(), '.local', 'share'),
    'imgcred',
  );
}

function fromEnvironment(environment: Record<string, string | undefined>): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(settings.shape)) {
    const value = environment[`IMGCRED_${name.toUpperCase()}`];
    if (value !== undefined && value !== '') values[name] = value;
  }
  return values;
}

function readConfigFile(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ImgcredError(
      'USAGE',
      `the configuration file ${file} can't be read (${systemErrorReason(cause)})`,
      { cause },
    );
  }
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (cause) {
    throw new ImgcredError('USAGE', `the configuration file ${file} is not a JSON object`, { cause });
  }
}
