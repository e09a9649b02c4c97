import { z } from 'zod';
import { counted } from '../../errors/index.ts';
import { generateKeyLine } from '../../secrets/index.ts';
import type { Command } from '../command.ts';
import { ADMIN_OPTIONS, connect } from '../context.ts';
import { print, printJson } from '../output.ts';
import { listCommand } from './list-command.ts';

export const keyRotate: Command = {
  words: ['key', 'rotate'],
  summary: 'Make a new master key the active one, and wrap every workspace key with it',
  examples: ['imgcred key rotate'],
  options: ADMIN_OPTIONS,
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ from: z.string(), to: z.string(), rewrapped: z.number() });
    const rotation = await connection.client.json(shape, 'POST', '/v1/keys/rotate', {});
    if (invocation.flag('json')) await printJson(rotation);
    else
      await print(
        `${rotation.to} is active; ${counted(rotation.rewrapped, 'key is', 'keys are')} wrapped with it. ${rotation.from} stays until it is retired\n`,
      );
    return 0;
  },
};

export const keyRetire: Command = {
  words: ['key', 'retire'],
  summary: 'Give up a master key that wraps nothing any more',
  usage: 'KEY',
  examples: ['imgcred key retire kek_…'],
  options: ADMIN_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await connection.client.fetch(
      'POST',
      `/v1/keys/${encodeURIComponent(invocation.positionals[0] ?? '')}/retire`,
      {},
    );
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};

export const keyGenerate: Command = {
  words: ['key', 'generate'],
  summary: 'Print a new line for a master key file of your own',
  examples: ['(umask 077; imgcred key generate >> /etc/imgcred/master-key)'],
  options: {},
  positionals: [0, 0],
  async run() {
    await print(`${await generateKeyLine()}\n`);
    return 0;
  },
};

export const keyList = listCommand({
  words: ['key', 'ls'],
  summary: 'List master keys',
  examples: ['imgcred key ls'],
  options: ADMIN_OPTIONS,
  path: () => '/v1/keys',
  field: 'keys',
  row: z.looseObject({ id: z.string(), state: z.string(), present: z.boolean(), created_at: z.string() }),
  named: (key) => key.id,
  header: ['ID', 'STATE', 'PRESENT', 'CREATED'],
  cells: (key) => [key.id, key.state, key.present ? 'yes' : 'no', key.created_at],
});
