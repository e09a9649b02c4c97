import { type PushIndexProgress, pushIndexSchema } from '../../protocol/index.ts';
import { findImage } from '../find-image.ts';
import type { IndexPublication } from '../index-publication.ts';
import { progressLines } from '../progress-lines.ts';
import { parameter, type Route, readBody } from '../routing.ts';
import { ndjson } from '../streams.ts';

export function indexPushRoutes(publication: IndexPublication): Route[] {
  return [
    {
      method: 'post',
      path: '/v1/images/:id/index',
      role: 'operator',
      summary: 'Store an image’s index in its registry, beside it; as application/x-ndjson with progress',
      async handle(c, { identity, workspace }) {
        const request = await readBody(c, pushIndexSchema);
        const image = findImage(workspace, parameter(c, 'id'));
        const { signal } = c.req.raw;
        if (!c.req.header('accept')?.includes('application/x-ndjson')) {
          return c.json(await publication.push(image, request, identity, undefined, signal), 201);
        }
        return ndjson(
          progressLines<PushIndexProgress>(async (onProgress) => ({
            kind: 'done',
            artifact: await publication.push(image, request, identity, onProgress, signal),
          })),
        );
      },
    },
  ];
}
