import { readFile } from 'node:fs/promises';
import { formatBytes, parseBytes } from '../../config/index.ts';
import { ImgcredError, isErrorCode, systemErrorCode } from '../../errors/index.ts';
import { type ContainerOverrides, type CreateContainer, logChunkSchema } from '../../protocol/index.ts';
import { parseReference } from '../../reference/index.ts';
import type { ApiClient } from '../api-client.ts';
import { type ContainerShape, containerShape } from '../api-shapes.ts';
import type { Command, Invocation } from '../command.ts';
import { CONNECTION_OPTIONS, connect, ROLE_OPTIONS } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { parseMount } from '../mount-option.ts';
import { print, printJson } from '../output.ts';
import { registerImage } from '../register-image.ts';

export const run: Command = {
  words: ['run'],
  summary: 'Run a command in a registered image, fetching only what it reads',
  usage: 'IMAGE [--] [COMMAND [ARGUMENT…]]',
  description:
    'IMAGE is an id or a reference. One that is not registered yet is registered first, with the --creds options or as\n' +
    'public. Where no server runs, all roles start in this process. Exits with the command’s own code; 125 where\n' +
    'imgcred failed, 126 where the command can’t be executed, 127 where it does not exist.',
  examples: [
    'imgcred run registry.example.com/app:1',
    'imgcred run registry.example.com/app:1 -- /bin/sh -c "echo hello"',
    'imgcred run --env MODE=test --memory 512m --max-fetch 40MB registry.example.com/app:1 -- /app/server',
    'imgcred run --detach --name web registry.example.com/app:1',
  ],
  options: {
    env: {
      value: 'KEY[=VALUE]',
      short: 'e',
      multiple: true,
      help: 'environment variable; without a value, this shell’s',
    },
    'env-file': { value: 'FILE', multiple: true, help: 'file with KEY=VALUE lines' },
    entrypoint: { value: 'COMMAND', help: 'instead of the image’s entrypoint; empty for none' },
    workdir: { value: 'DIR', help: 'working directory' },
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
    'pids-limit': { value: 'N', help: 'most processes at once' },
    'cap-add': { value: 'CAP', multiple: true, help: 'add a capability' },
    'cap-drop': { value: 'CAP', multiple: true, help: 'drop a capability (ALL drops each)' },
    label: { value: 'KEY=VALUE', multiple: true, help: 'label' },
    restart: { value: 'POLICY', help: 'no, always, on-failure or on-failure:N (no)' },
    'worker-label': { value: 'KEY=VALUE', multiple: true, help: 'label that the worker must have' },
    'stop-timeout': { value: 'SECONDS', help: 'between stop signal and SIGKILL (10)' },
    name: { value: 'NAME', help: 'name of the container' },
    'max-fetch': { value: 'SIZE', help: 'fail the run once it has fetched more than this' },
    detach: { short: 'd', help: 'print the container’s id and return' },
    report: { help: 'print on stderr what was fetched, and the times' },
    ...CREDENTIAL_OPTIONS,
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  stopsAtFirstPositional: true,
  positionals: [1, 1],
  async run(invocation) {
    const image = invocation.positionals[0] ?? '';
    const request = await requestOf(invocation, image);
    await using connection = await connect(invocation);
    const { client } = connection;
    const created = await createRegistered(client, request, invocation);
    if (invocation.flag('detach')) {
      await print(`${created.id}\n`);
      return 0;
    }
    const ended = await follow(client, created);
    if (invocation.flag('json')) await printJson(ended);
    return finish(ended, invocation.flag('report'));
  },
};

async function createRegistered(
  client: ApiClient,
  request: CreateContainer,
  invocation: Invocation,
): Promise<ContainerShape> {
  const create = () => client.json(containerShape, 'POST', '/v1/containers', request);
  try {
    return await create();
  } catch (thrown) {
    const unknown =
      thrown instanceof ImgcredError && thrown.code === 'NOT_FOUND' && !/^img_/.test(request.image);
    if (!unknown) throw thrown;
  }
  const { registry, repository } = parseReference(request.image);
  const credentials = await readCredentials(invocation, registry, repository);
  await registerImage(client, {
    reference: request.image,
    ...(credentials === undefined ? {} : { base_image_creds: credentials }),
  });
  return create();
}

/** Copies the container's output to ours until it has ended; the first ^C stops it, the second kills it. */
async function follow(client: ApiClient, container: ContainerShape): Promise<ContainerShape> {
  const path = `/v1/containers/${container.id}`;
  let interrupts = 0;
  const interrupt = () => {
    const kill = interrupts++ > 0;
    client.fetch('POST', `${path}/stop`, { kill }).catch(() => {});
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    for await (const chunk of client.lines(logChunkSchema, 'GET', `${path}/logs?follow=true`)) {
      const bytes = Buffer.from(chunk.data, 'base64');
      await Bun.write(chunk.stream === 'stdout' ? Bun.stdout : Bun.stderr, bytes);
    }
    return await client.json(containerShape, 'GET', `${path}?wait=true`);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

function finish(ended: ContainerShape, report: boolean): number {
  if (report && ended.fetch !== null) {
    const { bytes_fetched, image_compressed_bytes, requests, timings_ms, fallbacks, last_failure, driver } =
      ended.fetch;
    const causes = Object.entries(ended.fetch.bytes_fetched_by_cause)
      .map(([cause, bytes]) => `${cause} ${formatBytes(bytes)}`)
      .join(', ');
    const share = ((bytes_fetched / Math.max(1, image_compressed_bytes)) * 100).toFixed(1);
    process.stderr.write(
      `fetched ${formatBytes(bytes_fetched)} of ${formatBytes(image_compressed_bytes)} (${share} %) in ${requests} requests, driver ${driver}; ${causes}\n` +
        `${Object.entries(timings_ms)
          .map(([step, ms]) => `${step} ${ms.toFixed(0)} ms`)
          .join(', ')}\n` +
        fallbacks.map((reason) => `not lazy: ${reason}\n`).join('') +
        (last_failure === null ? '' : `reads failed: ${last_failure}\n`),
    );
  }
  if (ended.error !== null) {
    const { code, message, hint } = ended.error;
    process.stderr.write(`imgcred: ${message}\n${hint === undefined ? '' : `  ${hint}\n`}`);
    if (ended.exit_code === null) {
      return new ImgcredError(isErrorCode(code) ? code : 'CONTAINER_FAILED', message).exitCode;
    }
  } else if (ended.reason !== null && ended.exit_code !== 0) {
    process.stderr.write(`imgcred: ${ended.reason}\n`);
  }
  return ended.exit_code ?? 125;
}

async function requestOf(invocation: Invocation, image: string): Promise<CreateContainer> {
  const number = (name: string) => {
    const text = invocation.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text === '' || !Number.isFinite(value))
      throw new ImgcredError('USAGE', `--${name} ${text}: must be a number`);
    return value;
  };
  const size = (name: string) => {
    const text = invocation.text(name);
    return text === undefined ? undefined : parseBytes(text);
  };
  const several = (name: string) => {
    const values = invocation.texts(name);
    return values.length === 0 ? undefined : [...values];
  };
  const network = invocation.text('network');
  if (network !== undefined && network !== 'none' && network !== 'host') {
    throw new ImgcredError('USAGE', `--network ${network}: must be none or host`);
  }
  const entrypoint = invocation.text('entrypoint');
  const labels = invocation.texts('label').map((text) => splitPair(text, '--label'));
  const mounts = invocation.texts('mount').map(parseMount);
  const overrides = withoutUndefined<ContainerOverrides>({
    entrypoint: entrypoint === undefined ? undefined : entrypoint === '' ? [] : [entrypoint],
    workdir: invocation.text('workdir'),
    user: invocation.text('user'),
    hostname: invocation.text('hostname'),
    network,
    mounts: mounts.length === 0 ? undefined : mounts,
    read_only: invocation.flag('read-only') ? true : undefined,
    memory_bytes: size('memory'),
    cpus: number('cpus'),
    pids_limit: number('pids-limit'),
    cap_add: several('cap-add'),
    cap_drop: several('cap-drop'),
    labels: labels.length === 0 ? undefined : Object.fromEntries(labels),
    stop_timeout: number('stop-timeout'),
  });
  const name = invocation.text('name');
  const maxFetch = size('max-fetch');
  const workerLabels = invocation.texts('worker-label').map((text) => splitPair(text, '--worker-label'));
  return {
    image,
    ...(invocation.rest.length === 0 ? {} : { command: [...invocation.rest] }),
    env: await environmentOf(invocation),
    ...(name === undefined ? {} : { name }),
    overrides,
    restart: invocation.text('restart') ?? 'no',
    ...(workerLabels.length === 0 ? {} : { worker_labels: Object.fromEntries(workerLabels) }),
    ...(maxFetch === undefined ? {} : { max_fetch_bytes: maxFetch }),
  };
}

async function environmentOf(invocation: Invocation): Promise<Record<string, string>> {
  const env: Record<string, string> = {};
  for (const file of invocation.texts('env-file')) {
    let text: string;
    try {
      text = await readFile(file, 'utf8');
    } catch (cause) {
      throw new ImgcredError(
        'USAGE',
        `--env-file ${file} can't be read (${systemErrorCode(cause) ?? 'unknown error'})`,
        { cause },
      );
    }
    for (const line of text.split(/\r?\n/)) {
      if (line.trim() !== '' && !line.trimStart().startsWith('#')) take(line.trimStart());
    }
  }
  for (const text of invocation.texts('env')) take(text);
  return env;

  function take(text: string): void {
    const equals = text.indexOf('=');
    if (equals > 0) env[text.slice(0, equals)] = text.slice(equals + 1);
    else {
      const value = process.env[text];
      if (value !== undefined) env[text] = value;
    }
  }
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
