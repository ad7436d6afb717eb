// The public API: what a program needs to load, run, train and score models. Everything else is importable by
// path in this repository but may change between versions.

export { type Alignment, type AlignOptions, align } from './alignment/align.ts';
export { emojiPictures, llavaPictures } from './alignment/pictures.ts';
export { bundledTexts } from './alignment/texts.ts';
export { openCheckpoint, saveCheckpoint } from './checkpoint/checkpoint.ts';
export { buildEmojiDataset } from './data/emoji/build.ts';
export { loadEmojiGlyphs } from './data/emoji/glyphs.ts';
export { readLlavaJson } from './data/llava-json.ts';
export { openEngine } from './engine/devices.ts';
export type {
  Constant,
  DeviceName,
  Engine,
  Program,
  SavedSlot,
  SequenceState,
  SlotState,
  State,
  StoredValue,
  Value,
  Write,
} from './engine/engine.ts';
export { float32, float32Values, int32 } from './engine/engine.ts';
export { createOrtEngine } from './engine/ort.ts';
export { createReferenceEngine } from './engine/reference.ts';
export { UserError } from './errors.ts';
export { answerQuestions } from './evaluate/evaluate.ts';
export { evaluateModel, type ModelEvaluation } from './evaluate/evaluate-model.ts';
export { readQuestions } from './evaluate/questions.ts';
export { scoreSamples } from './evaluate/samples.ts';
export { createExplainer, type Explainer, loadExplainer } from './explain/explainer.ts';
export type { AnsweredQuestion, ExplainRequest, Explanation, MapOptions } from './explain/explanation.ts';
export { type Faithfulness, measureFaithfulness } from './explain/faithfulness.ts';
export { exportHuggingFace, exportPeft } from './export/hugging-face.ts';
export { exportLlamaCpp } from './export/llama-cpp.ts';
export { type ExportSource, withExportSource } from './export/source.ts';
export { exportTransformersJs } from './export/transformers-js.ts';
export {
  type AnswerPiece,
  type BatchAnswer,
  type BatchPrompt,
  type BatchSession,
  createBatchSession,
} from './generate/batch-session.ts';
export { type Conversation, startConversation } from './generate/conversation.ts';
export type { GenerationDefaults } from './generate/defaults.ts';
export { type ForwardInputs, type ForwardModel, type ForwardOptions, type ForwardOutput, forward } from './generate/forward.ts';
export { createGenerator, type Generator } from './generate/generator.ts';
export type { Sampling } from './generate/sampling.ts';
export { type AnswerOptions, createSession, type Picture, type Session, type SessionPrompt } from './generate/session.ts';
export * as composites from './graph/composites.ts';
export { grad } from './graph/grad.ts';
export * as ops from './graph/primitives.ts';
export { constant, input, type Tensor } from './graph/tensor.ts';
export { clipConfigSchema, clipVision } from './models/clip.ts';
export { languageConfigSchema, languageModel } from './models/language.ts';
export { llava, llavaConfigSchema, llavaParameters, visionFeatures } from './models/llava.ts';
export { visionConfigSchema, visionHiddenStates } from './models/vision.ts';
export { Parameters } from './nn/parameters.ts';
export { type ConvertOptions, convertCheckpoint } from './pretrained/convert.ts';
export { forwardModelOf, openModel } from './pretrained/folder.ts';
export { type CheckpointInfo, describeCheckpoint } from './pretrained/inspect.ts';
export { type LoadedModel, loadGenerator, loadModel } from './pretrained/load.ts';
export { readRunWeights, runStorageOf } from './pretrained/run-weights.ts';
export { readParameters } from './pretrained/values.ts';
export { type Job, type Outcome, runSearch, type SearchOptions, searchSpace } from './search/search.ts';
export { createTokenizer } from './text/tokenizer.ts';
export { loadRecipe, parseRecipe } from './train/recipe.ts';
export { train } from './train/run.ts';
export { openSafetensors, writeSafetensors } from './weights/safetensors.ts';
