import { z } from 'zod';
import { logChunkSchema } from '../../protocol/index.ts';
import { type ContainerShape, containerShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { SIGNAL } from '../container-values.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { optionValue, wholeNumber } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { sinceKind } from '../since-option.ts';
import { formatAge, formatTable } from '../table.ts';

const pathOf = (id: string | undefined) => `/v1/containers/${encodeURIComponent(id ?? '')}`;

export const containerList: Command = {
  words: ['container', 'ls'],
  summary: 'List containers',
  examples: ['imgcred container ls', 'imgcred container ls --all'],
  options: { all: { short: 'a', help: 'also those that have ended' }, ...CONNECTION_OPTIONS },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `/v1/containers?all=${invocation.flag('all')}`;
    const { containers } = await connection.client.json(
      z.object({ containers: z.array(containerShape) }),
      'GET',
      path,
    );
    if (invocation.flag('json')) await printJson(containers);
    else {
      // A column that says something, or is not there.
      const waits = containers.some(({ waiting_reason: reason }) => typeof reason === 'string');
      const rows = containers.map((container) => [
        container.id,
        container.image_reference,
        container.state,
        container.exit_code === null ? '-' : String(container.exit_code),
        container.worker ?? '-',
        formatAge(Date.parse(container.created_at), Date.now()),
        container.name ?? '-',
        (container.command ?? []).join(' ').slice(0, 40),
        ...(waits ? [container.waiting_reason ?? '-'] : []),
      ]);
      const header = ['ID', 'IMAGE', 'STATE', 'EXIT', 'WORKER', 'CREATED', 'NAME', 'COMMAND'];
      await print(formatTable(waits ? [...header, 'WAITS BECAUSE'] : header, rows));
    }
    return 0;
  },
};

export const containerShow: Command = {
  words: ['container', 'show'],
  summary: 'Show one container: state, exit code, what its image cost',
  usage: 'CONTAINER',
  examples: ['imgcred container show ctr_01j…'],
  options: CONNECTION_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await printJson(await connection.client.json(containerShape, 'GET', pathOf(invocation.positionals[0])));
    return 0;
  },
};

const LINES = wholeNumber({ least: 0 }, '100', { all: 'all' } as const);
const SINCE = sinceKind();

export const containerLogs: Command = {
  words: ['container', 'logs'],
  summary: 'Print what a container has written',
  usage: 'CONTAINER',
  examples: ['imgcred container logs --follow web'],
  options: {
    follow: { short: 'f', help: 'go on until the container ends' },
    tail: { value: 'N', takes: LINES, short: 'n', help: 'only the last N lines' },
    since: {
      value: 'TIME',
      takes: SINCE,
      help: 'only what was written since then: ISO 8601, or how long ago (90s, 10m)',
    },
    ...CONNECTION_OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const query = new URLSearchParams({ follow: String(invocation.flag('follow')) });
    const tail = optionValue(invocation, 'tail', LINES);
    if (tail !== undefined && tail !== 'all') query.set('tail', String(tail));
    const since = optionValue(invocation, 'since', SINCE);
    if (since !== undefined) query.set('since', new Date(since).toISOString());
    const path = `${pathOf(invocation.positionals[0])}/logs?${query}`;
    for await (const chunk of connection.client.lines(logChunkSchema, 'GET', path)) {
      if (invocation.flag('json')) await print(`${JSON.stringify(chunk)}\n`);
      else
        await Bun.write(
          chunk.stream === 'stdout' ? Bun.stdout : Bun.stderr,
          Buffer.from(chunk.data, 'base64'),
        );
    }
    return 0;
  },
};

export const containerWait: Command = {
  words: ['container', 'wait'],
  summary: 'Wait until a container has ended, and exit with its code',
  usage: 'CONTAINER',
  examples: ['imgcred container wait web'],
  options: CONNECTION_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `${pathOf(invocation.positionals[0])}?wait=true`;
    const ended: ContainerShape = await connection.client.json(containerShape, 'GET', path);
    if (invocation.flag('json')) await printJson(ended);
    return ended.exit_code ?? 125;
  },
};

export const containerStop: Command = {
  words: ['container', 'stop'],
  summary: 'Stop containers: their stop signal, then SIGKILL',
  usage: 'CONTAINER…',
  examples: ['imgcred container stop web'],
  options: { kill: { help: 'SIGKILL at once' }, ...CONNECTION_OPTIONS },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    for (const id of invocation.positionals) {
      await connection.client.fetch('POST', `${pathOf(id)}/stop`, { kill: invocation.flag('kill') });
      await print(`${id}\n`);
    }
    return 0;
  },
};

export const containerKill: Command = {
  words: ['container', 'kill'],
  summary: 'Send a signal to the first process of containers',
  usage: 'CONTAINER…',
  examples: ['imgcred container kill --signal HUP web'],
  options: {
    signal: { value: 'SIGNAL', takes: SIGNAL, short: 's', help: 'name or number (KILL)' },
    ...CONNECTION_OPTIONS,
  },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    const signal = invocation.text('signal') ?? 'KILL';
    for (const id of invocation.positionals) {
      await connection.client.fetch('POST', `${pathOf(id)}/kill`, { signal });
      await print(`${id}\n`);
    }
    return 0;
  },
};

export const containerRemove: Command = {
  words: ['container', 'rm'],
  summary: 'Forget containers that have ended, with their logs',
  usage: 'CONTAINER…',
  examples: ['imgcred container rm web', 'imgcred container rm --force web'],
  options: { force: { short: 'f', help: 'kill those that have not ended' }, ...CONNECTION_OPTIONS },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    const { client } = connection;
    for (const named of invocation.positionals) {
      let id = named;
      if (invocation.flag('force')) {
        // By its id from here on: its name is free once it has ended.
        ({ id } = await client.json(containerShape, 'GET', pathOf(named)));
        await client.fetch('POST', `${pathOf(id)}/stop`, { kill: true });
        await client.fetch('GET', `${pathOf(id)}?wait=true`);
      }
      await client.fetch('DELETE', pathOf(id));
      await print(`${named}\n`);
    }
    return 0;
  },
};
