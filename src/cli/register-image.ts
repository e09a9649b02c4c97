import { formatBytes } from '../config/index.ts';
import { counted, ImgcredError } from '../errors/index.ts';
import {
  errorOf,
  type RegisterImage,
  type RegisterProgress,
  registerProgressSchema,
} from '../protocol/index.ts';
import type { ApiClient } from './api-client.ts';
import { type ImageShape, imageShape } from './api-shapes.ts';
import { ProgressLine } from './output.ts';
import { rateText } from './progress-rate.ts';

export interface RegistrationFollowing {
  /** Called, more than once, while layers are read. */
  readonly onReading?: () => void;
  readonly signal?: AbortSignal;
}

/** Registers an image, showing what happens on stderr where that is a terminal; warnings always. */
export async function registerImage(
  client: ApiClient,
  request: RegisterImage,
  { onReading, signal }: RegistrationFollowing = {},
): Promise<ImageShape> {
  const progress = new ProgressLine();
  try {
    for await (const line of client.lines(registerProgressSchema, 'POST', '/v1/images', request, signal)) {
      if (line.kind === 'done') return imageShape.parse(line.image);
      if (line.kind === 'error') throw errorOf(line.error);
      if (line.kind === 'step') progress.show(line.step);
      else if (line.kind === 'progress') {
        onReading?.();
        progress.show(readingText(line));
      } else {
        progress.clear();
        process.stderr.write(`imgcred: ${line.message}\n`);
      }
    }
  } finally {
    progress.clear();
  }
  throw new ImgcredError('SERVER_UNREACHABLE', 'the server ended the registration without a result', {
    hint: 'run the command again: layers that were indexed are kept',
  });
}

/** How the reading of layers goes on, in one line. */
export function readingText(line: RegisterProgress & { kind: 'progress' }): string {
  const { layers, layers_done, bytes, bytes_total, entries } = line;
  return (
    `indexing: ${layers_done} of ${counted(layers, 'layer')}, ${formatBytes(bytes)} of ${formatBytes(bytes_total)}, ` +
    `${counted(entries, 'entry', 'entries')}${rateText(line)}`
  );
}
