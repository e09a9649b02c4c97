export { createGateway, type GatewayOptions } from './app.ts';
export { DEFAULT_WORKSPACE } from './identity.ts';
export { ImageRegistration } from './image-registration.ts';
export { LayerIndexes } from './layer-indexes.ts';
export { administrationRoutes } from './routes/administration.ts';
export { containerRoutes } from './routes/containers.ts';
export { imageRoutes } from './routes/images.ts';
export { secretRoutes } from './routes/secrets.ts';
export type { GatewayApp, Route } from './routing.ts';
