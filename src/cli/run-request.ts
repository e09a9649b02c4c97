import { parseBytes } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { ContainerOverrides, CreateContainer } from '../protocol/index.ts';
import type { Invocation, Options } from './command.ts';
import { readEnvironment } from './environment-option.ts';
import { parseMount } from './mount-option.ts';
import { parseSecretUse } from './secret-option.ts';
import { terminalSize } from './terminal.ts';

/** Options that say how a container is run. */
export const CONTAINER_OPTIONS = {
  env: {
    value: 'KEY[=VALUE]',
    short: 'e',
    multiple: true,
    help: 'environment variable; without a value, this shell’s',
  },
  'env-file': { value: 'FILE', multiple: true, help: 'file with KEY=VALUE lines' },
  secret: {
    value: 'NAME[,…]',
    multiple: true,
    help: 'secret of the workspace: NAME[,target=PATH][,mode=][,uid=][,gid=], or NAME,type=env[,target=VAR]',
  },
  entrypoint: {
    value: 'COMMAND',
    help: 'instead of the image’s entrypoint; ["a","b"] for several words, empty for none',
  },
  workdir: { value: 'DIR', short: 'w', help: 'working directory' },
  user: { value: 'USER[:GROUP]', short: 'u', help: 'user name or number, resolved in the image' },
  hostname: { value: 'NAME', help: 'host name' },
  network: { value: 'none|host', help: 'network (none)' },
  mount: {
    value: 'type=bind|tmpfs,…',
    multiple: true,
    help: 'type=bind,source=…,target=…[,ro] or type=tmpfs,target=…[,size=…]',
  },
  'read-only': { help: 'root file system is read-only' },
  memory: { value: 'SIZE', short: 'm', help: 'memory limit' },
  cpus: { value: 'N', help: 'processor cores, fractions allowed' },
  'pids-limit': { value: 'N', help: 'most processes at once; -1 for no limit (2048)' },
  'cap-add': { value: 'CAP', multiple: true, help: 'add a capability' },
  'cap-drop': { value: 'CAP', multiple: true, help: 'drop a capability (ALL drops each)' },
  'security-opt': { value: 'no-new-privileges', help: 'no program of it gains rights by set-uid bits' },
  label: { value: 'KEY=VALUE', short: 'l', multiple: true, help: 'label' },
  restart: { value: 'POLICY', help: 'no, always, on-failure or on-failure:N (no)' },
  'worker-label': { value: 'KEY=VALUE', multiple: true, help: 'label that the worker must have' },
  'stop-timeout': { value: 'SECONDS', help: 'between stop signal and SIGKILL (10)' },
  name: { value: 'NAME', help: 'name of the container' },
  'max-fetch': { value: 'SIZE', help: 'fail the run once it has fetched more than this' },
  interactive: { short: 'i', help: 'keep the standard input open, and pass ours on' },
  tty: { short: 't', help: 'give it a terminal' },
} satisfies Options;

/**
 * The request that the options of a run make.
 *
 * @throws ImgcredError USAGE naming the option
 */
export async function runRequest(invocation: Invocation, image: string): Promise<CreateContainer> {
  const name = invocation.text('name');
  const maxFetch = sizeOf(invocation, 'max-fetch');
  const workerLabels = invocation.texts('worker-label').map((text) => splitPair(text, '--worker-label'));
  const secrets = invocation.texts('secret').map(parseSecretUse);
  return {
    image,
    ...(invocation.rest.length === 0 ? {} : { command: [...invocation.rest] }),
    env: await readEnvironment(invocation.texts('env'), invocation.texts('env-file')),
    ...(name === undefined ? {} : { name }),
    overrides: overridesOf(invocation),
    ...(secrets.length === 0 ? {} : { secrets }),
    restart: invocation.text('restart') ?? 'no',
    ...(workerLabels.length === 0 ? {} : { worker_labels: Object.fromEntries(workerLabels) }),
    ...(maxFetch === undefined ? {} : { max_fetch_bytes: maxFetch }),
  };
}

function overridesOf(invocation: Invocation): ContainerOverrides {
  const several = (name: string) => {
    const values = invocation.texts(name);
    return values.length === 0 ? undefined : [...values];
  };
  const network = invocation.text('network');
  if (network !== undefined && network !== 'none' && network !== 'host') {
    throw new ImgcredError('USAGE', `--network ${network}: must be none or host`);
  }
  const labels = invocation.texts('label').map((text) => splitPair(text, '--label'));
  const mounts = invocation.texts('mount').map(parseMount);
  const tty = invocation.flag('tty');
  const attached = !invocation.flag('detach') && (tty || invocation.flag('interactive'));
  return withoutUndefined<ContainerOverrides>({
    entrypoint: entrypointOf(invocation.text('entrypoint')),
    workdir: invocation.text('workdir'),
    user: invocation.text('user'),
    hostname: invocation.text('hostname'),
    network,
    mounts: mounts.length === 0 ? undefined : mounts,
    read_only: invocation.flag('read-only') ? true : undefined,
    memory_bytes: limitOf(sizeOf(invocation, 'memory')),
    cpus: limitOf(numberOf(invocation, 'cpus')),
    pids_limit: pidsLimitOf(invocation),
    cap_add: several('cap-add'),
    cap_drop: several('cap-drop'),
    no_new_privileges: noNewPrivileges(invocation),
    labels: labels.length === 0 ? undefined : Object.fromEntries(labels),
    stop_timeout: numberOf(invocation, 'stop-timeout'),
    interactive: invocation.flag('interactive') ? true : undefined,
    terminal: tty ? true : undefined,
    terminal_size: tty ? terminalSize() : undefined,
    start_when_attached: attached ? true : undefined,
  });
}

function entrypointOf(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  if (text === '') return [];
  if (!text.trimStart().startsWith('[')) return [text];
  try {
    const words: unknown = JSON.parse(text);
    if (Array.isArray(words) && words.every((word) => typeof word === 'string')) return words;
  } catch {
    // As podman: what is no JSON is the name of a program.
  }
  return [text];
}

function noNewPrivileges(invocation: Invocation): true | undefined {
  const text = invocation.text('security-opt');
  if (text === undefined) return undefined;
  if (text === 'no-new-privileges' || text === 'no-new-privileges:true' || text === 'no-new-privileges=true')
    return true;
  throw new ImgcredError('USAGE', `--security-opt ${text}: must be no-new-privileges`);
}

// As podman: 0 is no limit.
function limitOf(limit: number | undefined): number | undefined {
  return limit === 0 ? undefined : limit;
}

// As podman: 0 is no limit either.
function pidsLimitOf(invocation: Invocation): number | undefined {
  const limit = numberOf(invocation, 'pids-limit');
  return limit === 0 ? -1 : limit;
}

function numberOf(invocation: Invocation, name: string): number | undefined {
  const text = invocation.text(name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value))
    throw new ImgcredError('USAGE', `--${name} ${text}: must be a number`);
  return value;
}

function sizeOf(invocation: Invocation, name: string): number | undefined {
  const text = invocation.text(name);
  return text === undefined ? undefined : parseBytes(text);
}

function splitPair(text: string, option: string): [string, string] {
  const equals = text.indexOf('=');
  if (equals === 0) throw new ImgcredError('USAGE', `${option} ${text}: must be KEY=VALUE`);
  return equals < 0 ? [text, ''] : [text.slice(0, equals), text.slice(equals + 1)];
}

type Optional<T> = { [K in keyof T]?: T[K] | undefined };

/** `exactOptionalPropertyTypes` tells an absent field from an undefined one; JSON doesn't. */
function withoutUndefined<T extends object>(value: Optional<T>): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;
}
