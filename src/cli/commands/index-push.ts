import { formatBytes } from '../../config/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import { errorOf, type PushedIndex, type PushIndex, pushIndexProgressSchema } from '../../protocol/index.ts';
import type { ApiClient } from '../api-client.ts';
import { imageShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, connect, ROLE_OPTIONS } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { ProgressLine, print, printJson } from '../output.ts';
import { rateText } from '../progress-rate.ts';
import { readingText } from '../register-image.ts';

export const indexPush: Command = {
  words: ['index', 'push'],
  summary: 'Store an image’s index in its registry, so that it is built once in the world',
  usage: 'IMAGE [--creds-env NAMES | --creds-file FILE | --creds-stdin | --secret NAME]',
  description:
    'The index goes beside the image, as an artifact that refers to it. Whoever registers the image afterwards takes it\n' +
    'from there, without reading a layer. The image’s own credential is used unless another is named: it must be able\n' +
    'to push. What is named here is used for this once and not stored.',
  examples: [
    'imgcred index push registry.example.com/app:1',
    'REGISTRY_USERNAME=ci REGISTRY_PASSWORD=… imgcred index push registry.example.com/app:1 --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
  ],
  options: {
    ...CREDENTIAL_OPTIONS,
    secret: { value: 'NAME', help: 'push with a secret of the workspace' },
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    const image = invocation.positionals[0] ?? '';
    const secret = invocation.text('secret');
    await using connection = await connect(invocation);
    const path = `/v1/images/${encodeURIComponent(image)}`;
    const { registry, repository } = await connection.client.json(imageShape, 'GET', path);
    const credentials = await readCredentials(invocation, String(registry), String(repository));
    const pushed = await pushIndex(connection.client, path, {
      ...(credentials === undefined ? {} : { base_image_creds: credentials }),
      ...(secret === undefined ? {} : { secret }),
    });
    if (invocation.flag('json')) await printJson(pushed);
    else {
      await print(
        `the index of ${image} is stored as ${pushed.repository}@${pushed.digest}\n` +
          `  ${formatBytes(pushed.bytes)}, of which ${formatBytes(pushed.bytes_sent)} had to be sent; listed by ${
            pushed.listed_by === 'tag' ? 'a tag (the registry has no referrers API)' : 'the registry'
          }\n`,
      );
    }
    return 0;
  },
};

async function pushIndex(client: ApiClient, path: string, request: PushIndex): Promise<PushedIndex> {
  const progress = new ProgressLine();
  try {
    for await (const line of client.lines(pushIndexProgressSchema, 'POST', `${path}/index`, request)) {
      if (line.kind === 'done') return line.artifact;
      if (line.kind === 'error') throw errorOf(line.error);
      if (line.kind === 'step') progress.show(line.step);
      else if (line.kind === 'progress') progress.show(readingText(line));
      else {
        progress.show(
          `uploading: ${formatBytes(line.bytes)} of ${formatBytes(line.bytes_total)}${rateText(line)}`,
        );
      }
    }
  } finally {
    progress.clear();
  }
  throw new ImgcredError('SERVER_UNREACHABLE', 'the server ended the push without a result', {
    hint: 'run the command again: what was uploaded is not sent again',
  });
}
