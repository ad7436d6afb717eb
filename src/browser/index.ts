// llava-gemma/browser: a model's folder is opened, loaded, asked and trained in a tab. It is the code of
// Node over other modules for files, pictures and engines (scripts/bundle.mjs).

import './no-eval.ts';

export type { DeviceName, Engine } from '../engine/engine.ts';
export { UserError } from '../errors.ts';
export { type Conversation, startConversation } from '../generate/conversation.ts';
export type { Sampling } from '../generate/sampling.ts';
export { type AnswerOptions, createSession, type Picture, type Session, type SessionPrompt } from '../generate/session.ts';
export type { Turn } from '../text/chat.ts';
export type { ConnectorExample, ConnectorStep, ConnectorTraining } from '../train/connector.ts';
export { decodeImage } from './decode.ts';
export { type Folder, type FolderOrigin, type OpenFolderOptions, openFolder } from './folder.ts';
export { type LoadOptions, loadModel, modelFiles, modelZip, type TabModel, type TrainOptions, trainConnector } from './model.ts';
