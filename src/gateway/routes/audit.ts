import { z } from 'zod';
import type { Secrets } from '../../secrets/index.ts';
import { type Route, readQuery, requireUnbound } from '../routing.ts';
import { iso } from '../views.ts';

export function auditRoutes({ audit }: Secrets): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/audit',
      role: 'admin',
      summary: 'Read the audit log',
      handle(c, { identity, workspace }) {
        const query = readQuery(
          c,
          z.object({
            after: z.coerce.number().int().min(0).optional(),
            limit: z.coerce.number().int().min(1).max(10_000).default(1000),
            action: z.string().optional(),
            everywhere: z.enum(['true', 'false']).default('false'),
          }),
        );
        const everywhere = query.everywhere === 'true' && identity.workspaceId === undefined;
        const rows = audit.list({
          ...(everywhere ? {} : { workspaceId: workspace.id }),
          after: query.after,
          limit: query.limit,
          action: query.action,
        });
        return c.json({
          events: rows.map((row) => ({
            sequence: row.sequence,
            at: iso(row.at),
            workspace_id: row.workspaceId ?? null,
            actor: row.actor,
            origin: row.origin ?? null,
            action: row.action,
            secret_id: row.secretId ?? null,
            secret_name: row.secretName ?? null,
            secret_version: row.secretVersion ?? null,
            container_id: row.containerId ?? null,
            detail: row.detail,
            hash: Buffer.from(row.hash).toString('hex'),
          })),
        });
      },
    },
    {
      method: 'get',
      path: '/v1/audit/verify',
      role: 'admin',
      summary: 'Check the audit log’s chain of hashes',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const { head } = readQuery(
          c,
          z.object({
            head: z
              .string()
              .regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits')
              .optional(),
          }),
        );
        return c.json(await audit.verify(head, c.req.raw.signal));
      },
    },
  ];
}
