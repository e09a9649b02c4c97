// What who comes from podman types, and what there is here instead.
const INSTEAD: Readonly<Record<string, string>> = {
  format: '--json prints everything: pick from it with jq',
  filter: '--json prints everything: pick from it with jq',
  f: '--json prints everything: pick from it with jq',
  'no-trunc': 'nothing is cut but long commands; --json has these too',
  publish: 'a container has no network of its own: --network host shares the machine’s',
  p: 'a container has no network of its own: --network host shares the machine’s',
  tmpfs: 'write --mount type=tmpfs,target=DIR',
  privileged: 'name what it needs: --cap-add CAP, --mount type=bind,source=/dev/…,target=/dev/…',
  pull: 'nothing is pulled: register the image again to take a new one, imgcred image add REFERENCE',
  creds: 'use --creds-env NAMES, --creds-file FILE or --creds-stdin',
  authfile: '--creds-file FILE takes a docker config.json',
  'tls-verify': '--insecure-registry HOST speaks to that registry without TLS',
};

/** What to use instead of an option of podman's that imgcred does not have. */
export function insteadOf(name: string): string | undefined {
  return Object.hasOwn(INSTEAD, name) ? INSTEAD[name] : undefined;
}
