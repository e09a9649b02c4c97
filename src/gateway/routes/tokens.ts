import { z } from 'zod';
import { ROLES, type TokenRow } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, readBody, requireUnbound } from '../routing.ts';
import { iso, isoOrNull } from '../views.ts';

export function tokenRoutes({ tokens }: Secrets): Route[] {
  const view = (row: TokenRow) => ({
    id: row.id,
    name: row.name,
    role: row.role,
    workspace_id: row.workspaceId ?? null,
    /** Of role `worker`: the worker that it is for, `first` while nobody has registered with it, null for any. */
    for_worker: row.forWorker ?? null,
    created_by: row.createdBy,
    created_at: iso(row.createdAt),
    expires_at: isoOrNull(row.expiresAt),
    revoked_at: isoOrNull(row.revokedAt),
    last_used_at: isoOrNull(row.lastUsedAt),
  });
  return [
    {
      method: 'get',
      path: '/v1/tokens',
      role: 'admin',
      summary: 'List tokens, without their values',
      handle: (c, { identity }) => c.json({ tokens: tokens.list(identity.workspaceId).map(view) }),
    },
    {
      method: 'post',
      path: '/v1/tokens',
      role: 'admin',
      summary: 'Make a token; its value is shown this once',
      async handle(c, { identity, workspace }) {
        const shape = z.strictObject({
          name: z.string(),
          role: z.enum(ROLES),
          /** Not bound to a workspace: for the roles admin and worker. */
          unbound: z.boolean().default(false),
          /** For role worker: any number of workers may register with it, not the first one alone. */
          reusable: z.boolean().default(false),
          expires_at: z.coerce.date().optional(),
        });
        const request = await readBody(c, shape);
        const unbound = request.unbound || request.role === 'worker';
        if (unbound) requireUnbound(identity);
        if (request.reusable && request.role !== 'worker') {
          throw new ImgcredError(
            'INVALID_INPUT',
            `reusable is for tokens of role worker, not ${request.role}`,
          );
        }
        const { token, row } = tokens.create(
          {
            name: request.name,
            role: request.role,
            workspaceId: unbound ? undefined : workspace.id,
            forOneWorker: request.role === 'worker' && !request.reusable,
            expiresAt: request.expires_at?.getTime(),
          },
          identity,
        );
        return c.json({ ...view(row), token: token.reveal() }, 201, { 'cache-control': 'no-store' });
      },
    },
    {
      method: 'delete',
      path: '/v1/tokens/:id',
      role: 'admin',
      summary: 'Revoke a token',
      handle(c, { identity }) {
        const named = parameter(c, 'id');
        const known = tokens.list(identity.workspaceId);
        const called = known.filter((token) => token.name === named && token.revokedAt === undefined);
        const row = known.find((token) => token.id === named) ?? called[0];
        if (row?.id !== named && called.length > 1) {
          throw new ImgcredError(
            'CONFLICT',
            `${called.length} live tokens are called ${JSON.stringify(named)}`,
            {
              hint: `name one by its id: ${called.map(({ id }) => id).join(', ')}`,
            },
          );
        }
        if (row === undefined) {
          throw new ImgcredError('NOT_FOUND', `no live token ${JSON.stringify(named)}`, {
            hint: 'see `imgcred token ls`',
          });
        }
        const { id } = row;
        tokens.revoke(id, identity, identity.workspaceId);
        return c.json({ id });
      },
    },
  ];
}
