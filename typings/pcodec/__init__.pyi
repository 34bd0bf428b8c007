class ModeSpec: ...
class DeltaSpec: ...
class PagingSpec: ...

class Progress:
    n_processed: int
    finished: bool

class ChunkConfig:
    def __init__(
        self,
        compression_level: int = ...,
        mode_spec: ModeSpec = ...,
        delta_spec: DeltaSpec = ...,
        paging_spec: PagingSpec = ...,
        enable_8_bit: bool = ...,
    ) -> None: ...
