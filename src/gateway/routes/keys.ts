import type { Secrets } from '../../secrets/index.ts';
import { parameter, type Route, requireUnbound } from '../routing.ts';
import { iso, isoOrNull } from '../views.ts';

export function keyRoutes({ keyring, administration }: Secrets): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/keys',
      role: 'admin',
      summary: 'List master keys, without their bytes',
      handle(c, { identity }) {
        requireUnbound(identity);
        const keys = keyring.list().map((key) => ({
          id: key.id,
          state: key.state,
          present: key.present,
          created_at: iso(key.createdAt),
          retired_at: isoOrNull(key.retiredAt),
        }));
        return c.json({ keys });
      },
    },
    {
      method: 'post',
      path: '/v1/keys/rotate',
      role: 'admin',
      summary: 'Make a new master key the active one, and wrap all workspace keys with it',
      async handle(c, { identity }) {
        requireUnbound(identity);
        // Not ended with the client's connection: half of the keys would wait for the next start.
        return c.json(await administration.rotateMasterKey(identity));
      },
    },
    {
      method: 'post',
      path: '/v1/keys/:id/retire',
      role: 'admin',
      summary: 'Give up a master key that wraps nothing any more',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const id = parameter(c, 'id');
        await administration.retireMasterKey(id, identity);
        return c.json({ id });
      },
    },
  ];
}
