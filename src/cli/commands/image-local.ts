import { z } from 'zod';
import { formatBytes } from '../../config/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import {
  type ContentState,
  contentStateSchema,
  errorOf,
  pinLineSchema,
  pinViewSchema,
} from '../../protocol/index.ts';
import type { ApiClient } from '../api-client.ts';
import type { Command, Invocation } from '../command.ts';
import { CONNECTION_OPTIONS, ROLE_OPTIONS } from '../context.ts';
import { eachNamed } from '../each-named.ts';
import { ProgressLine, print, printJson } from '../output.ts';
import { formatAge, formatTable } from '../table.ts';
import { connectToNode, onWorker, WORKER_OPTION } from '../worker-option.ts';
import { LIST_OPTIONS, printList } from './list-command.ts';

const pathOf = (image: string) => `/v1/images/${encodeURIComponent(image)}`;

export const imageDu: Command = {
  words: ['image', 'du'],
  summary: 'Show how much of an image is on a machine, layer by layer',
  usage: 'IMAGE',
  description:
    'LOCAL is what can be read with the registry gone, of the unpacked SIZE; MISSING is what would have to be fetched,\n' +
    'compressed; LAST START is what the last start of the image touched, compressed. Files that an upper layer hides\n' +
    'count for nothing.',
  examples: ['imgcred image du registry.example.com/app:1'],
  options: { ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connectToNode(invocation);
    const state = await localState(invocation, connection.client, invocation.positionals[0] ?? '');
    if (invocation.flag('json')) await printJson(state);
    else {
      const rows = state.layers.map((layer) => [
        layer.digest,
        formatBytes(layer.uncompressed_bytes),
        formatBytes(layer.local_bytes),
        formatBytes(layer.missing_bytes),
        formatBytes(layer.last_run_bytes),
        layer.whole ? 'whole: it has no random access' : 'lazily',
      ]);
      await print(formatTable(['LAYER', 'SIZE', 'LOCAL', 'MISSING', 'LAST START', 'FETCHED'], rows));
      await print(
        `${state.local ? 'wholly local' : `${formatBytes(state.missing_bytes)} missing`}${state.pinned ? ', pinned' : ''}\n`,
      );
    }
    return 0;
  },
};

export const imagePin: Command = {
  words: ['image', 'pin'],
  summary: 'Make an image wholly local, and keep it until it is unpinned',
  usage: 'IMAGE',
  description:
    'Waits until every file can be read with the registry gone. The pin stays if that fails: doing it again goes on.',
  examples: [
    'imgcred image pin registry.example.com/app:1',
    'imgcred image pin registry.example.com/app:1 --worker edge-1',
  ],
  options: { ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    const image = invocation.positionals[0] ?? '';
    await using connection = await connectToNode(invocation);
    const fetched = await pin(invocation, connection.client, image);
    if (invocation.flag('json')) await printJson(await localState(invocation, connection.client, image));
    else await print(`${image} is wholly local and pinned; fetched ${formatBytes(fetched)}\n`);
    return 0;
  },
};

export const imagePins: Command = {
  words: ['image', 'pins'],
  summary: 'List the pinned images of the workspace',
  examples: ['imgcred image pins'],
  options: { ...LIST_OPTIONS, ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connectToNode(invocation);
    const schema = z.object({ pins: z.array(pinViewSchema) });
    const { pins } = await connection.client.json(schema, 'GET', onWorker(invocation, '/v1/node/pins'));
    await printList(invocation, pins, {
      named: (entry) => entry.image_id,
      header: ['IMAGE', 'REFERENCE', 'PINNED'],
      cells: (entry) => [entry.image_id, entry.reference, formatAge(Date.parse(entry.pinned_at), Date.now())],
    });
    return 0;
  },
};

export const imageUnpin: Command = {
  words: ['image', 'unpin'],
  summary: 'Let an image’s content be evicted again',
  usage: 'IMAGE…',
  examples: ['imgcred image unpin registry.example.com/app:1'],
  options: { ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connectToNode(invocation);
    return await eachNamed(invocation, async (image) => {
      await connection.client.fetch('DELETE', onWorker(invocation, `${pathOf(image)}/pin`));
    });
  },
};

function localState(invocation: Invocation, client: ApiClient, image: string): Promise<ContentState> {
  return client.json(contentStateSchema, 'GET', onWorker(invocation, `${pathOf(image)}/local`));
}

/** Pins, showing how it goes. Answers the bytes that it took. */
async function pin(invocation: Invocation, client: ApiClient, image: string): Promise<number> {
  const path = onWorker(invocation, `${pathOf(image)}/pin`);
  const progress = new ProgressLine();
  let first: number | undefined;
  try {
    for await (const line of client.lines(pinLineSchema, 'POST', path)) {
      if (line.kind === 'done') return line.bytes_fetched;
      if (line.kind === 'error') throw errorOf(line.error);
      first ??= line.missing_bytes;
      progress.show(`pinning: ${formatBytes(first - line.missing_bytes)} of ${formatBytes(first)}`);
    }
  } finally {
    progress.clear();
  }
  throw new ImgcredError('SERVER_UNREACHABLE', 'the server ended the pinning without a result', {
    hint: 'run the command again: what has come in is kept',
  });
}
