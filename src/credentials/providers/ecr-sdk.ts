// An entry point of its own: the SDK is a quarter of the program, and few runs need it.
export { ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
