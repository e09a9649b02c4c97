import { z } from 'zod';
import type { Database } from '../../database/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, readBody, requireUnbound } from '../routing.ts';
import { iso } from '../views.ts';

export function workspaceRoutes(database: Database, { administration }: Secrets): Route[] {
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
      handle(c, { identity }) {
        requireUnbound(identity);
        const row = database.workspaces.get(parameter(c, 'name'));
        administration.shredWorkspace(row.id, identity);
        return c.json({ id: row.id, name: row.name });
      },
    },
  ];
}
