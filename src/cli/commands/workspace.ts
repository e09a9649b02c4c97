import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import type { Command } from '../command.ts';
import { ADMIN_OPTIONS, connect } from '../context.ts';
import { print, printJson } from '../output.ts';
import { listCommand } from './list-command.ts';

export const workspaceCreate: Command = {
  words: ['workspace', 'create'],
  summary: 'Make a workspace, with an encryption key of its own',
  usage: 'NAME',
  examples: ['imgcred workspace create team-a'],
  options: ADMIN_OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const shape = z.looseObject({ id: z.string(), name: z.string() });
    const made = await connection.client.json(shape, 'POST', '/v1/workspaces', {
      name: invocation.positionals[0],
    });
    if (invocation.flag('json')) await printJson(made);
    else await print(`${made.name} is made (${made.id})\n`);
    return 0;
  },
};

export const workspaceRemove: Command = {
  words: ['workspace', 'rm'],
  summary: 'Delete a workspace and destroy its key: its secrets are gone for good',
  usage: 'NAME --yes',
  examples: ['imgcred workspace rm team-a --yes'],
  options: { yes: { help: 'do it' }, ...ADMIN_OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    const name = invocation.positionals[0] ?? '';
    if (!invocation.flag('yes')) {
      throw new ImgcredError('USAGE', `deleting workspace ${name} can't be undone`, {
        hint: 'add --yes to do it',
      });
    }
    await using connection = await connect(invocation);
    await connection.client.fetch('DELETE', `/v1/workspaces/${encodeURIComponent(name)}`);
    await print(`${name}\n`);
    return 0;
  },
};

export const workspaceList = listCommand({
  words: ['workspace', 'ls'],
  summary: 'List workspaces',
  examples: ['imgcred workspace ls'],
  options: ADMIN_OPTIONS,
  path: () => '/v1/workspaces',
  field: 'workspaces',
  row: z.looseObject({ id: z.string(), name: z.string(), created_at: z.string() }),
  named: (workspace) => workspace.name,
  header: ['NAME', 'ID', 'CREATED'],
  cells: (workspace) => [workspace.name, workspace.id, workspace.created_at],
});
