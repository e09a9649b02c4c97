import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { busyboxLayer, layerOf } from '../../test/fixtures/images/index.ts';
import { Pusher, type RegistryFixture } from '../../test/fixtures/registry/index.ts';
import { output } from './mark.ts';

export const USER = 'bench';
export const PASSWORD = 'bench-password';

// A Debian with Python and numpy, and what makes an image of 350 MB of it: a JDK, a C compiler, Node.
const PACKAGES = ['python3-numpy', 'openjdk-17-jdk-headless', 'clang-14', 'nodejs'];
const SMALL_FILES = 200;

/** Makes the large image as an OCI layout, once. Takes some minutes. */
export async function largeLayout(directory: string): Promise<string> {
  const layout = path.join(directory, 'large');
  await output([path.resolve(import.meta.dir, '../make-debian-image'), layout, ...PACKAGES]);
  return layout;
}

/** The same image with zstd:chunked layers, which have tables of contents, made once. Takes a minute or two. */
export async function chunkedLayout(layout: string): Promise<string> {
  const chunked = `${layout}-chunked`;
  if (!existsSync(chunked)) {
    const fresh = `${chunked}.new`;
    rmSync(fresh, { recursive: true, force: true });
    await output(['skopeo', 'copy', '--quiet', '--dest-compress-format=zstd:chunked', `oci:${layout}:latest`, `oci:${fresh}:latest`]);
    renameSync(fresh, chunked);
  }
  return chunked;
}

/** The tree that a layout's image unpacks to, made once. */
export async function unpacked(layout: string): Promise<string> {
  const bundle = `${layout}-unpacked`;
  const complete = path.join(bundle, '.complete');
  if (!existsSync(complete)) {
    rmSync(bundle, { recursive: true, force: true });
    await output(['umoci', 'unpack', '--image', `${layout}:latest`, bundle]);
    writeFileSync(complete, '');
  }
  return path.join(bundle, 'rootfs');
}

/** Pushes a layout's image. */
export async function push(layout: string, host: string, repository: string): Promise<void> {
  // Byte for byte: a blob that was once pushed in other compression must not be put in its place.
  const access = ['--preserve-digests', '--dest-creds', `${USER}:${PASSWORD}`, '--dest-tls-verify=false'];
  await output(['skopeo', 'copy', '--quiet', ...access, `oci:${layout}:latest`, `docker://${host}/${repository}`]);
}

/** Pushes an image of 5 MB in two layers: a shell, and files that don't compress. */
export async function pushSmall(registry: RegistryFixture, repository: string, tag: string): Promise<void> {
  const files = layerOf(`
    mkdir data
    openssl enc -aes-256-ctr -pbkdf2 -k small -nosalt < /dev/zero 2>/dev/null | head -c ${SMALL_FILES * 20_000} > all
    split -b 20000 -a 3 -d all data/file-
    rm all
  `);
  const pusher = new Pusher(registry, USER, PASSWORD);
  await pusher.image({ repository, tag, layers: [await busyboxLayer(), await files] });
}
