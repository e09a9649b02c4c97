import { toImgcredError } from '../../errors/index.ts';
import { type RegisterProgress, registerImageSchema } from '../../protocol/index.ts';
import { findImage } from '../find-image.ts';
import type { ImageRegistration } from '../image-registration.ts';
import { parameter, type Route, readBody } from '../routing.ts';
import { ndjson } from '../streams.ts';
import { imageView } from '../views.ts';

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
          const image = await registration.register(workspace.id, request, identity, undefined, signal);
          return c.json(imageView(image), 201);
        }
        return ndjson(
          progressLines(async (onProgress) => {
            const image = await registration.register(workspace.id, request, identity, onProgress, signal);
            return { kind: 'done', image: imageView(image) };
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
      handle: (c, { workspace }) => c.json(imageView(findImage(workspace, parameter(c, 'id')))),
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

const PROGRESS_EVERY_MS = 100;

/** What `work` tells of its progress, thinned out, then its result or its error, as lines. */
async function* progressLines(
  work: (onProgress: (line: RegisterProgress) => void) => Promise<RegisterProgress>,
) {
  const queue: RegisterProgress[] = [];
  let wake = () => {};
  let last = Number.NEGATIVE_INFINITY;
  const push = (line: RegisterProgress) => {
    if (line.kind === 'progress' && line.layers_done < line.layers) {
      if (performance.now() - last < PROGRESS_EVERY_MS) return;
      last = performance.now();
    }
    queue.push(line);
    wake();
  };
  let finished = false;
  work(push)
    .catch((thrown): RegisterProgress => ({ kind: 'error', ...toImgcredError(thrown).toJSON() }))
    .then((line) => {
      finished = true;
      push(line);
    });
  for (;;) {
    const line = queue.shift();
    if (line !== undefined) yield line;
    else if (finished) return;
    else await new Promise<void>((resolve) => (wake = resolve));
  }
}
