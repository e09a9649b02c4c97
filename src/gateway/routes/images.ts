import { type RegisterProgress, registerImageSchema } from '../../protocol/index.ts';
import { findImage } from '../find-image.ts';
import type { ImageRegistration, RegisteredImage } from '../image-registration.ts';
import { progressLines } from '../progress-lines.ts';
import { parameter, type Route, readBody } from '../routing.ts';
import { ndjson } from '../streams.ts';
import { imageView, traceView } from '../views.ts';

export function imageRoutes(registration: ImageRegistration): Route[] {
  return [
    {
      method: 'post',
      path: '/v1/images',
      role: 'operator',
      summary: 'Register an image with its registry credential; as application/x-ndjson with progress',
      async handle(c, { identity, workspace }) {
        const request = await readBody(c, registerImageSchema);
        const { signal } = c.req.raw;
        if (!c.req.header('accept')?.includes('application/x-ndjson')) {
          const done = await registration.register(workspace.id, request, identity, undefined, signal);
          return c.json(registeredView(done), 201);
        }
        return ndjson(
          progressLines<RegisterProgress>(async (onProgress) => {
            const done = await registration.register(workspace.id, request, identity, onProgress, signal);
            return { kind: 'done', image: registeredView(done) };
          }),
        );
      },
    },
    {
      method: 'get',
      path: '/v1/images',
      role: 'runner',
      summary: 'List images',
      handle: (c, { workspace }) => c.json({ images: workspace.images.list().map(imageView) }),
    },
    {
      method: 'get',
      path: '/v1/images/:id',
      role: 'runner',
      summary: 'Show an image, by id or reference',
      handle(c, { workspace }) {
        const image = findImage(workspace, parameter(c, 'id'));
        const trace = workspace.traces.find(image.indexDigest);
        return c.json({ ...imageView(image), trace: trace === undefined ? null : traceView(trace) });
      },
    },
    {
      method: 'delete',
      path: '/v1/images/:id',
      role: 'operator',
      summary: 'Forget an image; its secret stays',
      handle(c, { workspace }) {
        const image = findImage(workspace, parameter(c, 'id'));
        workspace.images.delete(image.id);
        return c.json({ id: image.id });
      },
    },
  ];
}

function registeredView({ image, warnings }: RegisteredImage) {
  return { ...imageView(image), warnings };
}
