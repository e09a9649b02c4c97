import { z } from 'zod';
import { logChunkSchema } from '../../protocol/index.ts';
import { containerPath, containerShape } from '../api-shapes.ts';
import { type Command, OWN_FAILURE } from '../command.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { optionValue, wholeNumber } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { sinceKind } from '../since-option.ts';
import { formatAge } from '../table.ts';
import { LIST_OPTIONS, printList } from './list-command.ts';

export const containerList: Command = {
  words: ['container', 'ls'],
  summary: 'List containers',
  examples: [
    'imgcred container ls',
    'imgcred container ls --all',
    'imgcred container stop $(imgcred container ls -q)',
  ],
  options: {
    all: { short: 'a', help: 'also those that have ended' },
    ...LIST_OPTIONS,
    ...CONNECTION_OPTIONS,
  },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `/v1/containers?all=${invocation.flag('all')}`;
    const { containers } = await connection.client.json(
      z.object({ containers: z.array(containerShape) }),
      'GET',
      path,
    );
    // A column that says something, or is not there.
    const waits = containers.some(({ waiting_reason: reason }) => typeof reason === 'string');
    const header = ['ID', 'IMAGE', 'STATE', 'EXIT', 'WORKER', 'CREATED', 'NAME', 'COMMAND'];
    await printList(invocation, containers, {
      named: ({ id }) => id,
      header: waits ? [...header, 'WAITS BECAUSE'] : header,
      cells: (container) => [
        container.id,
        container.image_reference,
        container.state,
        container.exit_code === null ? '-' : String(container.exit_code),
        container.worker ?? '-',
        formatAge(Date.parse(container.created_at), Date.now()),
        container.name ?? '-',
        shortened((container.command ?? []).join(' ')),
        ...(waits ? [container.waiting_reason ?? '-'] : []),
      ],
    });
    return 0;
  },
};

const LONGEST_COMMAND = 40;

function shortened(command: string): string {
  return command.length > LONGEST_COMMAND ? `${command.slice(0, LONGEST_COMMAND - 1)}…` : command;
}

export const containerShow: Command = {
  words: ['container', 'show'],
  summary: 'Show one container: state, exit code, what its image cost',
  usage: 'CONTAINER',
  examples: ['imgcred container show ctr_01j…'],
  options: CONNECTION_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await printJson(
      await connection.client.json(containerShape, 'GET', containerPath(invocation.positionals[0])),
    );
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
    const path = `${containerPath(invocation.positionals[0])}/logs?${query}`;
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
  summary: 'Wait until containers have ended, print their exit codes, and exit with the first that is not 0',
  usage: 'CONTAINER…',
  description: 'A container that was cancelled, or could not be run, counts as 125.',
  examples: ['imgcred container wait web', 'imgcred container wait web worker'],
  options: CONNECTION_OPTIONS,
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    const { client } = connection;
    const wait = (named: string) => client.json(containerShape, 'GET', `${containerPath(named)}?wait=true`);
    const ended = await Promise.all(invocation.positionals.map(wait));
    const codes = ended.map((container) => container.exit_code ?? OWN_FAILURE);
    if (invocation.flag('json')) await printJson(ended.length === 1 ? ended[0] : ended);
    else await print(codes.map((code) => `${code}\n`).join(''));
    return codes.find((code) => code !== 0) ?? 0;
  },
};
