import { formatBytes } from '../../config/index.ts';
import { counted, ERROR_CODES, ImgcredError } from '../../errors/index.ts';
import { type CreateContainer, logChunkSchema, type RegisterImage } from '../../protocol/index.ts';
import { parseReference } from '../../reference/index.ts';
import type { ApiClient } from '../api-client.ts';
import { type ContainerShape, containerPath, containerShape } from '../api-shapes.ts';
import { attach } from '../attach-client.ts';
import {
  ATTACH_OPTIONS,
  CONNECTION_WITHOUT_W,
  connectionLost,
  detachKeysOf,
  signalsPassOn,
} from '../attach-options.ts';
import { type Command, type Invocation, OWN_FAILURE } from '../command.ts';
import { type Connection, connect, ROLE_OPTIONS } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { seeToStart } from '../detached-run.ts';
import { INDEX_OPTION, indexRequest } from '../index-option.ts';
import { isBrokenPipe, print, printJson } from '../output.ts';
import { registerImage } from '../register-image.ts';
import { RunNotice } from '../run-notice.ts';
import { CONTAINER_OPTIONS, runRequest } from '../run-request.ts';
import { SignalProxy } from '../signal-proxy.ts';

export const run: Command = {
  words: ['run'],
  summary: 'Run a command in a registered image, fetching only what it reads',
  usage: 'IMAGE [--] [COMMAND [ARGUMENT…]]',
  description:
    'IMAGE is an id or a reference. One that is not registered yet is registered first, with the --creds and --index\n' +
    'options or as public. Where no server runs, all roles start in this process. Exits with the command’s own code; 125 where\n' +
    'imgcred failed, 126 where the command can’t be executed, 127 where it does not exist.',
  examples: [
    'imgcred run registry.example.com/app:1',
    'imgcred run registry.example.com/app:1 -- /bin/sh -c "echo hello"',
    'imgcred run --env MODE=test --memory 512m --max-fetch 40MB registry.example.com/app:1 -- /app/server',
    'imgcred run -it registry.example.com/app:1 -- /bin/sh',
    'imgcred run --secret db-password,type=env,target=PGPASSWORD registry.example.com/app:1',
    'imgcred run --detach --name web registry.example.com/app:1',
  ],
  options: {
    ...CONTAINER_OPTIONS,
    ...ATTACH_OPTIONS,
    detach: { short: 'd', help: 'print the container’s id and return' },
    rm: { help: 'forget the container, and its logs, once it has ended (not with --detach)' },
    report: { help: 'print on stderr what was fetched, and the times' },
    ...CREDENTIAL_OPTIONS,
    ...INDEX_OPTION,
    ...CONNECTION_WITHOUT_W,
    ...ROLE_OPTIONS,
  },
  stopsAtFirstPositional: true,
  positionals: [1, 1],
  ownFailure: OWN_FAILURE,
  async run(invocation) {
    const image = invocation.positionals[0] ?? '';
    const detachKeys = detachKeysOf(invocation);
    const passOn = signalsPassOn(invocation);
    const request = await runRequest(invocation, image);
    const remove = invocation.flag('rm');
    if (remove && invocation.flag('detach')) {
      throw new ImgcredError('USAGE', '--rm and --detach do not go together: nobody stays to see the end', {
        hint: 'leave --rm out, and use imgcred container rm once it has ended',
      });
    }
    const index = indexRequest(invocation);
    await using connection = await connect(invocation, { worker: 'soon' });
    const { client } = connection;
    const created = await createRegistered(connection, request, index, invocation);
    if (invocation.flag('detach')) {
      await print(`${created.id}\n`);
      const failed = connection.own ? await seeToStart(connection, created.id) : undefined;
      return failed === undefined ? 0 : finish(failed, false);
    }
    using notice = new RunNotice(client, created.id);
    using _ = passOn ? new SignalProxy(client, created.id, request.overrides.terminal !== true) : undefined;
    const ended =
      request.overrides.start_when_attached === true
        ? await converse(client, created, request, detachKeys)
        : await follow(client, created);
    if (ended === undefined) return 0;
    notice.warn(ended);
    if (remove) await client.fetch('DELETE', containerPath(ended.id));
    if (invocation.flag('json')) await printJson(ended);
    return finish(ended, invocation.flag('report'));
  },
};

/** Creates the container, of an image that is registered first where that is needed. */
async function createRegistered(
  connection: Connection,
  request: CreateContainer,
  index: Pick<RegisterImage, 'index'>,
  invocation: Invocation,
): Promise<ContainerShape> {
  const { client } = connection;
  const giveUp = new AbortController();
  // A registration for nobody need not go on.
  const needed = (work: Promise<void>) => {
    work.catch((thrown: unknown) => giveUp.abort(thrown));
    return work;
  };
  let starting: Promise<void> | undefined;
  const startWorker = () => {
    starting ??= needed(connection.worker());
    return starting;
  };
  const checkHost = () => needed(connection.checkHost());
  // While bytes come in, a processor has time for it.
  const meanwhile = { checkHost, startWorker, signal: giveUp.signal };
  await registerIfUnknown(connection, request.image, index, invocation, meanwhile);
  await startWorker();
  return client.json(containerShape, 'POST', '/v1/containers', request);
}

async function registerIfUnknown(
  connection: Connection,
  image: string,
  index: Pick<RegisterImage, 'index'>,
  invocation: Invocation,
  {
    checkHost,
    startWorker,
    signal,
  }: { checkHost: () => Promise<void>; startWorker: () => Promise<void>; signal: AbortSignal },
): Promise<void> {
  const { client } = connection;
  // An id can't be registered: whoever creates the container of one that is unknown hears so.
  if (/^img_/.test(image)) return;
  try {
    await client.fetch('GET', `/v1/images/${encodeURIComponent(image)}`, undefined, signal);
    return;
  } catch (thrown) {
    if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
  }
  const checked = checkHost();
  const { registry, repository } = parseReference(image);
  const credentials = await readCredentials(invocation, registry, repository);
  const request = {
    reference: image,
    ...index,
    ...(credentials === undefined ? {} : { base_image_creds: credentials }),
  };
  // A machine that can run nothing costs no more than a question or two to the registry.
  await Promise.all([checked, registerImage(client, request, { onReading: startWorker, signal })]);
}

/** Copies the container's output to ours until it has ended. */
async function follow(client: ApiClient, container: ContainerShape): Promise<ContainerShape> {
  const path = `/v1/containers/${container.id}`;
  try {
    for await (const chunk of client.lines(logChunkSchema, 'GET', `${path}/logs?follow=true`)) {
      const bytes = Buffer.from(chunk.data, 'base64');
      await Bun.write(chunk.stream === 'stdout' ? Bun.stdout : Bun.stderr, bytes);
    }
  } catch (thrown) {
    // What writes to a pipe that nobody reads is ended by it; the container writes to us.
    if (isBrokenPipe(thrown)) {
      await client.fetch('POST', `${path}/stop`, { kill: true });
      await client.fetch('GET', `${path}?wait=true`);
    }
    throw thrown;
  }
  return await client.json(containerShape, 'GET', `${path}?wait=true`);
}

/** Joins our standard streams to the container's until it has ended; undefined where we have left it. */
async function converse(
  client: ApiClient,
  { id }: ContainerShape,
  { overrides }: CreateContainer,
  detachKeys: Uint8Array,
): Promise<ContainerShape | undefined> {
  const path = `/v1/containers/${id}`;
  const terminal = overrides.terminal === true;
  const input = overrides.interactive === true;
  let end: Awaited<ReturnType<typeof attach>>;
  try {
    end = await attach(client, { path: `${path}/attach`, input, terminal, detachKeys });
    if (end.kind === 'failed' && !end.connected && end.error.code !== 'CONTAINER_FAILED') throw end.error;
  } catch (thrown) {
    // It waits for us, and we can't come.
    await client.fetch('POST', `${path}/stop`, { kill: true }).catch(() => {});
    throw thrown;
  }
  if (end.kind === 'detached') {
    process.stderr.write(`\r\nleft ${id}; come back with: imgcred attach ${id}\n`);
    return undefined;
  }
  if (end.kind === 'lost') throw connectionLost(id);
  // It goes on, and we have lost sight of it.
  if (end.kind === 'failed' && end.error.code === 'SERVER_UNREACHABLE') throw end.error;
  return await client.json(containerShape, 'GET', `${path}?wait=true`);
}

function finish(ended: ContainerShape, report: boolean): number {
  if (ended.state === 'cancelled') {
    process.stderr.write(`imgcred: ${ended.id} was stopped before it began\n`);
    return ERROR_CODES.CANCELLED.exit;
  }
  if (report && ended.fetch !== null) {
    const {
      bytes_fetched,
      image_compressed_bytes,
      requests,
      requests_by_cause,
      timings_ms,
      fallbacks,
      index,
      last_failure,
      driver,
    } = ended.fetch;
    const causes = Object.entries(ended.fetch.bytes_fetched_by_cause)
      .map(([cause, bytes]) => `${cause} ${formatBytes(bytes)}`)
      .join(', ');
    const share = ((bytes_fetched / Math.max(1, image_compressed_bytes)) * 100).toFixed(1);
    process.stderr.write(
      `fetched ${formatBytes(bytes_fetched)} of ${formatBytes(image_compressed_bytes)} (${share} %) in ${counted(requests, 'request')} (${requests_by_cause.demand ?? 0} that a read waited for), driver ${driver}; ${causes}\n` +
        `${Object.entries(timings_ms)
          .map(([step, ms]) => `${step} ${ms.toFixed(0)} ms`)
          .join(', ')}\n` +
        (index === null ? '' : `served by an index that ${originOf(index)}\n`) +
        fallbacks.map((reason) => `not lazy: ${reason}\n`).join('') +
        (last_failure === null ? '' : `reads failed: ${last_failure}\n`),
    );
  }
  if (ended.error !== null) {
    const { message, hint } = ended.error;
    process.stderr.write(`imgcred: ${message}\n${hint === undefined ? '' : `  ${hint}\n`}`);
  } else if (ended.reason !== null && ended.exit_code !== 0) {
    process.stderr.write(`imgcred: ${ended.reason}\n`);
  }
  return ended.exit_code ?? OWN_FAILURE;
}

function originOf({ artifact }: { readonly artifact: string | null }): string {
  return artifact === null ? 'was made by reading the layers' : `came from the registry (${artifact})`;
}
