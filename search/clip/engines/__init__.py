"""Which engine and precision embed pictures fastest on this CPU: measured once, then remembered.

May import ``clip``. Start reading at ``choose.py`` (what is measured, and the rules of the choice),
then ``record.py`` (what is kept on the disk, and how it is checked), ``faithful.py`` (how near two
towers' embeddings are), ``quantise.py`` and ``openvino_runtime.py`` (the extra ``openvino``, which
nothing else here imports). Encoders ask ``adapting.py`` while they embed a library's pictures.
"""
