import { formatBytes } from '../../config/index.ts';
import { counted } from '../../errors/index.ts';
import { parseReference } from '../../reference/index.ts';
import { type ImageShape, imageShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, connect, prepareConnection, ROLE_OPTIONS } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { eachNamed } from '../each-named.ts';
import { INDEX_OPTION, indexRequest } from '../index-option.ts';
import { print, printJson } from '../output.ts';
import { PLATFORM } from '../platform-option.ts';
import { registerImage } from '../register-image.ts';
import { formatAge, formatTable } from '../table.ts';
import { listCommand } from './list-command.ts';

export const imageAdd: Command = {
  words: ['image', 'add'],
  summary: 'Register an image with its registry credential, and index its layers',
  usage: 'REFERENCE [--creds-env NAMES | --creds-file FILE | --creds-stdin | --secret NAME]',
  description:
    'Proves the credential against the registry, takes the index that is stored there (`imgcred index push`), or the\n' +
    'tables of contents of eStargz and zstd:chunked layers, or reads each layer once to make it, and stores the credential\n' +
    'as an encrypted secret of the workspace. Without a credential the image must be public.\n' +
    'What is named by digest is read in any case, unless --index=require.',
  examples: [
    'REGISTRY_USERNAME=me REGISTRY_PASSWORD=… imgcred image add registry.example.com/app:1 --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
    'imgcred image add ghcr.io/me/app:1 --creds-file ~/.docker/config.json',
    'aws-vault exec dev -- imgcred image add 123456789012.dkr.ecr.eu-central-1.amazonaws.com/app:1 --creds-env AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,AWS_SESSION_TOKEN',
    'imgcred image add registry.example.com/other:2 --secret oci-registry-registry-example-com',
  ],
  options: {
    ...CREDENTIAL_OPTIONS,
    secret: { value: 'NAME', help: 'use a secret that the workspace has already' },
    platform: {
      value: 'OS/ARCH',
      takes: PLATFORM,
      help: 'platform to take from a multi-platform image (this machine’s)',
    },
    ...INDEX_OPTION,
    ...CONNECTION_OPTIONS,
    ...ROLE_OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    const reference = invocation.positionals[0] ?? '';
    const { registry, repository } = parseReference(reference);
    await prepareConnection(invocation);
    const credentials = await readCredentials(invocation, registry, repository);
    const secret = invocation.text('secret');
    const platform = invocation.text('platform');
    const index = indexRequest(invocation);
    await using connection = await connect(invocation);
    const image = await registerImage(connection.client, {
      reference,
      ...(credentials === undefined ? {} : { base_image_creds: credentials }),
      ...(secret === undefined ? {} : { secret }),
      ...(platform === undefined ? {} : { platform }),
      ...index,
    });
    if (invocation.flag('json')) await printJson(image);
    else {
      const indexShare = ((image.index_bytes / Math.max(1, image.compressed_bytes)) * 100).toFixed(1);
      await print(
        `${image.reference} is registered as ${image.id}\n` +
          `  ${counted(image.layers.length, 'layer')}, ${formatBytes(image.compressed_bytes)} compressed, ${counted(image.file_count, 'file')}; index ${formatBytes(image.index_bytes)} (${indexShare} %), ${originOf(image)}\n` +
          `  ${image.credential_secret_name === null ? 'public: no credential' : `credential: secret ${image.credential_secret_name}`}\n`,
      );
    }
    return 0;
  },
};

function originOf(image: ImageShape): string {
  return image.index_artifact === null ? 'made here' : `from the registry (${image.index_artifact})`;
}

export const imageList = listCommand({
  words: ['image', 'ls'],
  summary: 'List the images of the workspace',
  examples: ['imgcred image ls', 'imgcred image ls --json', 'imgcred image rm $(imgcred image ls -q)'],
  options: { ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  path: () => '/v1/images',
  field: 'images',
  row: imageShape,
  named: (image) => image.id,
  header: ['ID', 'REFERENCE', 'PLATFORM', 'SIZE', 'SECRET', 'REGISTERED'],
  cells: (image) => [
    image.id,
    image.reference,
    image.platform,
    formatBytes(image.compressed_bytes),
    image.credential_secret_name ?? '-',
    formatAge(Date.parse(image.created_at), Date.now()),
  ],
});

export const imageShow: Command = {
  words: ['image', 'show'],
  summary: 'Show one image',
  usage: 'IMAGE',
  examples: ['imgcred image show registry.example.com/app:1'],
  options: { ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const image = await connection.client.json(
      imageShape,
      'GET',
      `/v1/images/${encodeURIComponent(invocation.positionals[0] ?? '')}`,
    );
    if (invocation.flag('json')) {
      await printJson(image);
      return 0;
    }
    await print(
      formatTable(
        ['ID', image.id],
        [
          ['reference', image.reference],
          ['platform', image.platform],
          ['manifest', image.manifest_digest],
          ['compressed', formatBytes(image.compressed_bytes)],
          ['unpacked', formatBytes(image.uncompressed_bytes)],
          ['index', `${formatBytes(image.index_bytes)}, ${originOf(image)}`],
          ['files', String(image.file_count)],
          [
            'secret',
            image.credential_secret_name === null
              ? '- (public)'
              : `${image.credential_secret_name} (${image.credential_secret_id})`,
          ],
          ['starts', startsOf(image)],
          ['registered', image.created_at],
          ...image.layers.map((layer, number) => [
            `layer ${number}`,
            `${layer.digest} ${formatBytes(layer.size)}`,
          ]),
        ],
      ),
    );
    return 0;
  },
};

/** Of how many starts is known what they read first. */
function startsOf({ trace }: ImageShape): string {
  if (trace === null || trace === undefined) return 'none recorded';
  if (trace.starts === 0) return 'recorded elsewhere, from the registry';
  return `${trace.starts} recorded, the last ${trace.updated_at}`;
}

export const imageRemove: Command = {
  words: ['image', 'rm'],
  summary: 'Forget an image; its secret stays',
  usage: 'IMAGE…',
  examples: ['imgcred image rm registry.example.com/app:1'],
  options: { ...CONNECTION_OPTIONS, ...ROLE_OPTIONS },
  positionals: [1, 1000],
  async run(invocation) {
    await using connection = await connect(invocation);
    return await eachNamed(invocation, async (image) => {
      await connection.client.fetch('DELETE', `/v1/images/${encodeURIComponent(image)}`);
    });
  },
};
