import { isAbsolute, resolve } from 'node:path';
import { z } from 'zod';
import { type Config, dataLayout, formatBytes } from '../../config/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import { type NodeMount, nodeMountSchema } from '../../protocol/index.ts';
import { parseReference } from '../../reference/index.ts';
import type { Command, Invocation } from '../command.ts';
import { CONNECTION_OPTIONS, configOf, namesServer, ROLE_OPTIONS, stderrLogger } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { INDEX_OPTION, indexRequest } from '../index-option.ts';
import { loneWorker } from '../local-socket.ts';
import { print, printJson } from '../output.ts';
import { registerImage } from '../register-image.ts';
import { prepareUserMount, unmountForUser } from '../user-mount.ts';
import { connectToNode, namedWorker, onWorker, WORKER_OPTION } from '../worker-option.ts';
import { LIST_OPTIONS, printList } from './list-command.ts';

export const mount: Command = {
  words: ['mount'],
  summary: 'Mount an image at a directory, read-only and lazily, without a container',
  usage: 'IMAGE DIR',
  description:
    'What is read is fetched then, and kept. The mount outlives this command, and the server, until `imgcred umount`.\n' +
    'An image that is not registered yet is registered first, with the --creds and --index options or as public. An\n' +
    'ordinary user mounts by fusermount3, at directories of its own, which its own processes see and no others.\n' +
    'With --worker, DIR is a directory of that worker’s machine.',
  examples: [
    'imgcred mount registry.example.com/app:1 /mnt',
    'imgcred mount registry.example.com/app:1 /mnt && du -sh /mnt/usr; imgcred umount /mnt',
    'imgcred mount registry.example.com/app:1 /mnt --worker edge-1',
  ],
  options: {
    ...CREDENTIAL_OPTIONS,
    ...INDEX_OPTION,
    ...WORKER_OPTION,
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  positionals: [2, 2],
  async run(invocation) {
    const [image = '', directory = ''] = invocation.positionals;
    const target = directoryOf(invocation, directory);
    const index = indexRequest(invocation);
    const config = configOf(invocation);
    if (await mountsHere(invocation, config)) {
      await prepareUserMount(config, target, stderrLogger({ log_level: 'warn' }));
    }
    await using connection = await connectToNode(invocation);
    const { client } = connection;
    const ask = () =>
      client.json(nodeMountSchema, 'POST', onWorker(invocation, '/v1/node/mounts'), { image, target });
    let mounted: NodeMount;
    try {
      mounted = await ask();
    } catch (thrown) {
      const known = await isKnown(thrown, image, () =>
        client.fetch('GET', `/v1/images/${encodeURIComponent(image)}`),
      );
      if (known) throw thrown;
      const { registry, repository } = parseReference(image);
      const credentials = await readCredentials(invocation, registry, repository);
      await registerImage(client, {
        reference: image,
        ...index,
        ...(credentials === undefined ? {} : { base_image_creds: credentials }),
      });
      mounted = await ask();
    }
    if (invocation.flag('json')) await printJson(mounted);
    else await print(`${mounted.reference} is mounted at ${target} (driver ${mounted.driver})\n`);
    return 0;
  },
};

export const mountList: Command = {
  words: ['mount', 'ls'],
  summary: 'List the lazy mounts of a machine, with what they have fetched and what failed',
  examples: ['imgcred mount ls', 'imgcred mount ls --json'],
  options: { ...LIST_OPTIONS, ...WORKER_OPTION, ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [0, 0],
  async run(invocation) {
    await using connection = await connectToNode(invocation);
    const schema = z.object({ mounts: z.array(nodeMountSchema) });
    const { mounts } = await connection.client.json(schema, 'GET', onWorker(invocation, '/v1/node/mounts'));
    await printList(invocation, mounts, {
      // What `umount` takes; a container's own mount has no name.
      named: (entry) => entry.targets,
      header: ['IMAGE', 'DIRECTORY', 'DRIVER', 'FETCHED', 'WAITING', 'FAILED READS'],
      cells: (entry) => [
        entry.reference,
        entry.targets.join(', ') || '- (containers)',
        entry.driver,
        `${formatBytes(entry.bytes_fetched)} of ${formatBytes(entry.image_compressed_bytes)}`,
        String(entry.waiting_reads),
        failuresOf(entry),
      ],
    });
    return 0;
  },
};

export const umount: Command = {
  words: ['umount'],
  summary: 'Unmount an image from a directory',
  usage: 'DIR…',
  examples: ['imgcred umount /mnt'],
  options: {
    force: { short: 'f', help: 'also while it is in use: who has files open may go on, nobody else sees it' },
    ...WORKER_OPTION,
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  positionals: [1, 1000],
  async run(invocation) {
    const force = invocation.flag('force');
    const others: string[] = [];
    const here = await mountsHere(invocation, configOf(invocation));
    for (const target of invocation.positionals.map((directory) => directoryOf(invocation, directory))) {
      if (here && (await unmountForUser(target, force))) await print(`${target}\n`);
      else others.push(target);
    }
    if (others.length === 0) return 0;
    await using connection = await connectToNode(invocation);
    for (const target of others) {
      await connection.client.fetch('POST', onWorker(invocation, '/v1/node/umount'), { target, force });
      await print(`${target}\n`);
    }
    return 0;
  },
};

/** A directory as the server is told of it. @throws ImgcredError USAGE for a relative one on another machine */
function directoryOf(invocation: Invocation, named: string): string {
  if (namedWorker(invocation) === undefined || isAbsolute(named)) return resolve(named);
  throw new ImgcredError('USAGE', `${named} is to be a directory on the worker’s machine`, {
    hint: 'write it from the root, beginning with /',
  });
}

/** Whether the mount is to be on the machine that this command runs on. */
async function mountsHere(invocation: Invocation, config: Config): Promise<boolean> {
  const named = namedWorker(invocation);
  if (named === undefined) return !namesServer(invocation);
  return (await loneWorker(dataLayout(config.data_dir)))?.name === named;
}

/** Whether a failed request was not for want of the image. */
async function isKnown(thrown: unknown, image: string, look: () => Promise<unknown>): Promise<boolean> {
  if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND' || /^img_/.test(image)) return true;
  return look().then(
    () => true,
    () => false,
  );
}

function failuresOf({ failures }: NodeMount): string {
  const some = Object.entries(failures).filter(([, count]) => count > 0);
  return some.map(([failure, count]) => `${count} ${failure}`).join(', ') || '-';
}
