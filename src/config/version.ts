declare const IMGCRED_VERSION: string | undefined;
declare const IMGCRED_COMMIT: string | undefined;

/** The version that the build wrote into the executable; `development` when run from source. */
export const VERSION = typeof IMGCRED_VERSION === 'string' ? IMGCRED_VERSION : 'development';
export const COMMIT = typeof IMGCRED_COMMIT === 'string' ? IMGCRED_COMMIT : 'unknown';

/** Tells one build from another, also of the same version. */
export const BUILD = `${VERSION} ${COMMIT}`;
