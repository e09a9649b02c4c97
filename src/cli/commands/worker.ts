import { z } from 'zod';
import type { Command } from '../command.ts';
import { ADMIN_OPTIONS, connect } from '../context.ts';
import { print } from '../output.ts';
import { listCommand } from './list-command.ts';

export const workerDrain: Command = {
  words: ['worker', 'drain'],
  summary: 'Give a worker no new containers',
  usage: 'WORKER [--undo]',
  description: 'What it runs goes on to its end. Holds through restarts, the worker’s own too, until --undo.',
  examples: ['imgcred worker drain edge-1', 'imgcred worker drain edge-1 --undo'],
  options: { undo: { help: 'give it some again' }, ...ADMIN_OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `/v1/workers/${encodeURIComponent(invocation.positionals[0] ?? '')}/drain`;
    await connection.client.fetch('POST', path, { drain: !invocation.flag('undo') });
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};

export const workerRemove: Command = {
  words: ['worker', 'rm'],
  summary: 'Forget a worker that is no more',
  usage: 'WORKER',
  description:
    'For a machine that is gone, or has lost its data directory: its name is free again, and the tokens that were its own are revoked. A worker that lives is not removed: stop it first.',
  examples: ['imgcred worker rm edge-1'],
  options: ADMIN_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const path = `/v1/workers/${encodeURIComponent(invocation.positionals[0] ?? '')}`;
    await connection.client.fetch('DELETE', path);
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};

export const workerList = listCommand({
  words: ['worker', 'ls'],
  summary: 'List workers',
  examples: ['imgcred worker ls'],
  options: ADMIN_OPTIONS,
  path: () => '/v1/workers',
  field: 'workers',
  row: z.looseObject({
    id: z.string(),
    name: z.string(),
    version: z.string(),
    draining: z.boolean(),
    held: z.number(),
    last_heartbeat: z.string(),
  }),
  named: (worker) => worker.name,
  header: ['NAME', 'ID', 'VERSION', 'CONTAINERS', 'DRAINING', 'LAST HEARD'],
  cells: (worker) => [
    worker.name,
    worker.id,
    worker.version,
    String(worker.held),
    worker.draining ? 'yes' : 'no',
    worker.last_heartbeat,
  ],
});
