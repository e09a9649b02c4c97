// An entry point of its own: see ecr-sdk.ts.
export { JWT } from 'google-auth-library';
