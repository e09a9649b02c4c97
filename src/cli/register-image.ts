import { formatBytes } from '../config/index.ts';
import { ImgcredError, isErrorCode } from '../errors/index.ts';
import { type RegisterImage, registerProgressSchema } from '../protocol/index.ts';
import type { ApiClient } from './api-client.ts';
import { type ImageShape, imageShape } from './api-shapes.ts';
import { ProgressLine } from './output.ts';

/** Registers an image, showing what happens on stderr where that is a terminal. */
export async function registerImage(client: ApiClient, request: RegisterImage): Promise<ImageShape> {
  const progress = new ProgressLine();
  const started = performance.now();
  try {
    for await (const line of client.lines(registerProgressSchema, 'POST', '/v1/images', request)) {
      if (line.kind === 'done') return imageShape.parse(line.image);
      if (line.kind === 'error') {
        const { code, message, hint } = line.error;
        throw new ImgcredError(isErrorCode(code) ? code : 'INTERNAL', message, { hint });
      }
      if (line.kind === 'step') progress.show(line.step);
      else {
        const seconds = (performance.now() - started) / 1000;
        const rate = line.bytes / Math.max(seconds, 0.001);
        const left = rate > 0 ? Math.round((line.bytes_total - line.bytes) / rate) : 0;
        progress.show(
          `indexing: ${formatBytes(line.bytes)} of ${formatBytes(line.bytes_total)}, ${line.entries} entries, ` +
            `${formatBytes(rate)}/s, ${left} s left`,
        );
      }
    }
  } finally {
    progress.clear();
  }
  throw new ImgcredError('SERVER_UNREACHABLE', 'the server ended the registration without a result', {
    hint: 'run the command again: layers that were indexed are kept',
  });
}
