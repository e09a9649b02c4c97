import { z } from 'zod';
import type { Database } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import type { LogStore } from '../../logs/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, readBody, requireUnbound } from '../routing.ts';
import { iso } from '../views.ts';

/** No limit, as SQLite says it. */
const ALL = -1;

export function workspaceRoutes(
  database: Database,
  { administration }: Pick<Secrets, 'administration'>,
  logs: LogStore,
): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/workspaces',
      role: 'admin',
      summary: 'List workspaces',
      handle: (c, { identity }) =>
        c.json({
          workspaces: database.workspaces
            .list()
            .filter((row) => identity.workspaceId === undefined || row.id === identity.workspaceId)
            .map((row) => ({ id: row.id, name: row.name, created_at: iso(row.createdAt) })),
        }),
    },
    {
      method: 'post',
      path: '/v1/workspaces',
      role: 'admin',
      summary: 'Make a workspace',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const { name } = await readBody(c, z.strictObject({ name: z.string() }));
        const row = await administration.createWorkspace(name, identity);
        return c.json({ id: row.id, name: row.name, created_at: iso(row.createdAt) }, 201);
      },
    },
    {
      method: 'delete',
      path: '/v1/workspaces/:name',
      role: 'admin',
      summary: 'Delete a workspace, and destroy its key',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const row = database.workspaces.get(parameter(c, 'name'));
        const { containers } = database.workspace(row.id);
        if (
          containers.list({ states: ['assigned', 'preparing', 'running', 'stopping'], limit: 1 }).length > 0
        ) {
          throw new ImgcredError('CONFLICT', `the workspace ${row.name} has containers that run`, {
            hint: 'stop them first',
          });
        }
        const ids = containers.list({ limit: ALL }).map(({ id }) => id);
        administration.shredWorkspace(row.id, identity);
        // What they wrote may be as secret as the secrets. A crash before the end leaves some of it.
        for (const id of ids) await logs.remove(id);
        return c.json({ id: row.id, name: row.name });
      },
    },
  ];
}
